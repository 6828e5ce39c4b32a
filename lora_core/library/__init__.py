"""A library of LoRA files: a list at once, and what each file is as it is found out, kept in SQLite.

    names ── scan ──▶ files with sizes and times         no file is opened; thousands in some milliseconds
         ── store ──▶ what is known of them from earlier
         = Catalogue                                     rows with versions, entries as JSON that is made once
    worker: describes what is new (``entry``, by ``index``), hashes it, writes both, says so at most twice a second

A page gets the whole list before any file was opened, and then what changed since. Files of the user are only read;
``notes`` alone writes, into the sidecars of other programs.
"""

from .library import Library, Listing

__all__ = ["Library", "Listing"]
