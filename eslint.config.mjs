// Rules for the page's code; types are checked by tsc.
import js from "@eslint/js";
import globals from "globals";

export default [
  { ignores: ["web/vendor/"] },
  js.configs.recommended,
  {
    files: ["web/**/*.{js,mjs}"],
    languageOptions: { globals: globals.browser },
    rules: {
      eqeqeq: "error",
      "no-var": "error",
      "prefer-const": "error",
      "no-console": "error",
      "no-shadow": "error",
      "no-unused-vars": ["error", { args: "after-used" }],
      // Text of strangers goes into the page: as text, never as HTML.
      "no-restricted-properties": [
        "error",
        ...["innerHTML", "outerHTML", "insertAdjacentHTML"].map((property) => ({
          property,
          message: "Use dom.mjs: text is never HTML.",
        })),
      ],
    },
  },
  { files: ["tests/web/**/*.mjs"], languageOptions: { globals: globals.node } },
];
