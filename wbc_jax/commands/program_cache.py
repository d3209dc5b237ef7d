"""Which commands keep compiled programs, decided in one place: those of accelerators, where the config says so."""

from __future__ import annotations

from wbc_jax.runtime.compile_cache import enable_compile_cache


def enable_cache(compile_cache: bool, cache_dir: str | None) -> None:
    """Keeps compiled programs between starts; call it before anything is compiled.

    Args:
        compile_cache: as `runtime.compile_cache` says; False: nothing is done.
        cache_dir: as `data.cache_dir` says; None: the default one.

    Raises:
        UsageError: the directory cannot be made, or others could write into it.
    """
    import jax

    from wbc_jax.data.registry import cache_root

    # On CPU a program read back from the cache can hang its process for good (seen twice with jaxlib 0.10.1, inside
    # the deserialisation), and compiling anew takes seconds: accelerators only.
    if compile_cache and jax.default_backend() != "cpu":
        enable_compile_cache(cache_root(cache_dir))
