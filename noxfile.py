"""Everything a developer runs: `nox -s tests`, `lint`, `fuzz`, `demo`, `comfy`, `bench`.

Environments are made once and reused. All installs go under one constraint: the torch that this machine wants
(tests/host_harness/torch_pin.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tests"))

from host_harness.environment import HostEnvironment, prepare  # noqa: E402
from host_harness.host import ComfyHost  # noqa: E402
from host_harness.torch_pin import constraints_file, torch_requirement  # noqa: E402

nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "lint"]

# What the benchmarks compare with, beside the host's own code. One process runs them all, so one environment has all.
PEERS = ("accelerate", "diffusers", "matplotlib", "peft", "tensorboard", "tomli-w")


def install(session: nox.Session, extra: str) -> None:
    session.install("--constraint", str(constraints_file()), "--editable", f".[{extra}]")


def page_tools(session: nox.Session) -> None:
    """tsc, ESLint and the types of the host, as package-lock.json has them; the tests of pure modules need none."""
    lock = (ROOT / "package-lock.json").read_bytes()
    mark = ROOT / "node_modules" / ".loom"
    wanted = hashlib.sha256(lock).hexdigest()
    if not mark.exists() or mark.read_text() != wanted:
        session.run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", external=True)
        mark.write_text(wanted)


def host(session: nox.Session) -> HostEnvironment:
    if session.virtualenv.venv_backend != "none":
        # A developer's own ComfyUI (COMFYUI_PATH) runs under its own Python, or else under this session's.
        os.environ.setdefault("COMFYUI_PYTHON", str(Path(session.bin) / "python"))
    return prepare(session.log)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests; those marked `host` run in a real ComfyUI. Arguments after `--` go to pytest."""
    install(session, "test")
    host(session)
    # The tests look for the host that was just made, under the same torch.
    # Two processes, one of them with the host: most of a test is Python, which uses one core.
    parallel = () if {"-n", "-s", "--pdb"} & set(session.posargs) else ("-n", "2", "--dist", "loadscope")
    env = {"LOOM_TORCH": torch_requirement(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if not session.posargs:
        pages = map(str, sorted((ROOT / "tests" / "web").glob("*.test.mjs")))
        session.run("node", "--test", "--test-reporter=dot", *pages, external=True)
    session.run("pytest", *parallel, *session.posargs, env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """What CI and pre-commit check, Python and the page. `nox -s lint -- --fix` puts right what can be."""
    install(session, "lint")
    if "--fix" in session.posargs:
        session.run("ruff", "check", "--fix", ".")
        session.run("ruff", "format", ".")
    else:
        session.run("ruff", "check", ".")
        session.run("ruff", "format", "--check", ".")
    session.run("pyright")
    page_tools(session)
    session.run("npm", "run", "--silent", "lint", external=True)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzzing guided by coverage (atheris, on Linux), a minute for each parser: `nox -s fuzz -- --seconds 600 file`."""
    install(session, "test")
    session.install("atheris>=3.0")
    session.run("python", "tests/fuzz/guided.py", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Train both LoRAs, check them with and without a real ComfyUI; the results are in demo/out."""
    install(session, "test")
    proof = ROOT / "demo" / "out" / "proof"
    # A check that does not hold is told at the end: the host's own are of use beside it.
    # After Ctrl-C it saves, and the next call goes on: nox would kill it after half a second.
    prove = ("python", "-m", "demo.prove", "--output", str(proof))
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    session.run(*prove, success_codes=[0, 1], interrupt_timeout=60, terminate_timeout=60, env=threads)
    with ComfyHost(host(session), repository=ROOT) as running:
        for file in proof.glob("demo_*.safetensors"):
            running.add_model(file, name=f"proof/{file.name}")
        session.run("python", "demo/run.py", "--url", running.url, "--loras", "proof/", *session.posargs)
    checks = json.loads((proof / "results.json").read_text(encoding="utf-8"))["checks"]
    if wrong := [name for name, holds in checks.items() if not holds]:
        session.error(f"does not hold: {'; '.join(wrong)}")


@nox.session(venv_backend="none")
def comfy(session: nox.Session) -> None:
    """A real ComfyUI in the foreground, with the pack and the demo's model and LoRAs. Arguments go to ComfyUI."""
    arguments = list(session.posargs)
    port = int(arguments[arguments.index("--port") + 1]) if "--port" in arguments else 8188
    base = ROOT / "demo" / "out" / "comfy"
    environment = host(session)
    running = ComfyHost(
        environment,
        repository=ROOT,
        base_directory=base,
        port=port,
        cpu=not environment.has_gpu(),
        arguments=arguments,
    )
    try:
        running.start(echo=True)
        session.log(f"ComfyUI with LoRA Loom is at {running.url} (files: {base}); Ctrl-C ends it")
        running.wait()
    except KeyboardInterrupt:
        session.log("ended")
    finally:
        running.stop()


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Run benchmarks/*.py, or those named: `nox -s bench -- patch --device cuda`. Other arguments go to each."""
    known = {path.stem: path for path in sorted((ROOT / "benchmarks").glob("[!_]*.py"))}
    chosen = [name for name in session.posargs if name in known] or list(known)
    arguments = [word for word in session.posargs if word not in known]
    environment = prepare(session.log, PEERS)
    # ComfyUI first: its nodes.py must be found before our folder of that name.
    variables = {"PYTHONPATH": os.pathsep.join([str(environment.comfy), str(ROOT)])}
    for name in chosen:
        session.run(str(environment.python), str(known[name]), *arguments, env=variables, external=True)
