"""Build `kernel_test.cpp` with the kernels in several ways, and run it: compilers, sanitizers, processors.

python tests/native/run.py                       every way, one after the other
python tests/native/run.py plain address         some of them
python tests/native/run.py plain --cases 20000 --seed 7

Each way prints what it did. The answer is 0 if all is right, 1 if something is wrong, 2 if a tool is missing, 3 if a
way is not for this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
SOURCES = REPOSITORY / "src/saccade/ops/deform_conv/cpp"
HOST = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
# glibc fills new memory with this byte's complement, 0x7f: a number near the largest in every dtype.
PERTURB = {"MALLOC_PERTURB_": "128"}


class Wrong(Exception):
    code = 1


class Missing(Exception):
    code = 2


class NotHere(Exception):
    code = 3


@dataclass(frozen=True)
class Build:
    """What to compile, and how; `sets` are the instruction sets, the best first, each with its flags."""

    folder: Path
    sources: Path
    seed: int
    cases: int | None
    compiler: str = "g++"
    flags: tuple[str, ...] = ()
    link: tuple[str, ...] = ("-Wl,--no-as-needed", "-lgomp", "-ldl", "-pthread")
    own_threads: bool = False
    sets: dict[str, list[str]] = field(default_factory=dict)
    unasked: tuple[str, ...] = ()  # sets that run whether or not the processor says that it has them

    def program(self) -> Path:
        """Compile and link everything; return the program."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tables = " ".join(f"SET({name}, {int(name not in self.unasked)}, {int('bf16' in name)})" for name in self.sets)
        # The test itself needs no sanitizer, and has most of the work.
        test = ["-I", str(self.sources), f"-DSACCADE_SETS={tables}", "-O2", "-Wall", "-Wextra"]
        if self.own_threads:
            test.append("-DSACCADE_OWN_THREADS")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = [pool.submit(self.kernels, name) for name in self.sets]
            jobs.append(pool.submit(self.object, HERE / "kernel_test.cpp", "kernel_test", test))
            if not self.own_threads:
                jobs.append(pool.submit(self.object, self.sources / "threads.cpp", "threads", ["-O2", *self.flags]))
            objects = [str(job.result()) for job in jobs]
        program = self.folder / "kernel_test"
        link = [flag for flag in self.link if not (self.own_threads and flag == "-lgomp")]
        run([self.compiler, *self.flags, *objects, *link, "-o", str(program)])
        return program

    def kernels(self, name: str, *more: str) -> Path:
        """Compile the kernels for an instruction set as CMakeLists.txt does."""
        flags = [f"-DSACCADE_INSTRUCTIONS={name}", *common_flags(), *self.sets[name], *self.flags, *more]
        return self.object(self.sources / "kernels.cpp", f"kernels_{name}", flags)

    def object(self, source: Path, name: str, flags: list[str]) -> Path:
        made = self.folder / f"{name}.o"
        run([self.compiler, "-std=gnu++17", "-fPIC", *flags, "-c", str(source), "-o", str(made)])
        return made

    def test(self, program: Path, cases: int, which: str = "all", under: tuple[str, ...] = (), **env: str) -> str:
        """Run the program; return the line in which it says what was right."""
        cases = self.cases or cases
        found = run([*under, str(program), str(cases), str(self.seed), which], **env)
        return found.strip().splitlines()[-1]


def run(command: list[str], accept: tuple[int, ...] = (0,), **env: str) -> str:
    """Run a command; return what it wrote. OpenMP may use threads, and its threads sleep while they wait."""
    around = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    around |= {"OMP_WAIT_POLICY": "passive", **env}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=around, check=False)
    if done.returncode not in accept:
        raise Wrong(f"{shlex.join(command)}\nanswered {done.returncode}:\n{done.stdout[-8000:]}")
    return done.stdout


def tool(package: str, *names: str) -> str:
    """Return the first of these programs that there is, or say how to get one."""
    for name in names:
        if shutil.which(name):
            return name
    text = f"{names[-1]} is missing; on Debian: apt-get install -y {package}"
    raise Missing(text) if shutil.which("apt-get") else NotHere(text)


def only_on(machine: str, why: str) -> None:
    if machine != HOST:
        raise NotHere(f"this is {HOST}, not {machine}: {why}")


def common_flags() -> list[str]:
    text = (REPOSITORY / "CMakeLists.txt").read_text()
    found = re.search(r"target_compile_options\(kernels_\$\{name\} PRIVATE(.*?)\$\{ARGN\}\)", text, re.DOTALL)
    if not found:
        raise Wrong("CMakeLists.txt no longer says how kernels are compiled in a way that this script can read")
    return found[1].split()


def sets_of(machine: str) -> dict[str, list[str]]:
    """Read from CMakeLists.txt for which instruction sets kernels are compiled; there the best comes last."""
    found: dict[str, list[str]] = {}
    variables: dict[str, str] = {}
    conditions: list[str] = []
    for line in (REPOSITORY / "CMakeLists.txt").read_text().splitlines():
        if re.match(r"\s*if\(", line):
            conditions.append(line)
        elif re.match(r"\s*endif\(", line):
            conditions.pop()
        elif match := re.match(r"\s*(set|add_kernels)\((\w+)(.*)\)", line):
            value = re.sub(r"\$\{(\w+)\}", lambda name: variables.get(name[1], name[0]), match[3])
            if match[1] == "set":
                variables[match[2]] = value
            elif all(machine in c for c in conditions if "CMAKE_SYSTEM_PROCESSOR" in c):
                found[match[2]] = value.split()
    return dict(reversed(found.items()))


# ---- the ways


def plain(build: Build) -> Iterator[str]:
    """As CMakeLists.txt builds the kernels, for all instruction sets that this processor has."""
    build = replace(build, compiler=tool("g++", "g++"), sets=sets_of(HOST))
    yield build.test(build.program(), 5000, **PERTURB)


def clang(build: Build) -> Iterator[str]:
    """The same with Clang, the oldest and the newest version that there is of those that can compile the kernels."""
    # Not 14, which has no _Float16 on x86; not 16, which crashes on products of bfloat16 numbers.
    versions = [f"clang++-{version}" for version in range(30, 14, -1) if version != 16]
    found = [name for name in versions if shutil.which(name)] or [tool("clang-19", *versions, "clang++")]
    for compiler in dict.fromkeys([found[0], found[-1]]):
        own = replace(build, compiler=compiler, folder=build.folder / compiler, sets=sets_of(HOST))
        yield f"{compiler}: {own.test(own.program(), 1000, **PERTURB)}"


def address(build: Build) -> Iterator[str]:
    """AddressSanitizer and UndefinedBehaviorSanitizer; new memory is full of NaN."""
    flags = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    build = replace(build, compiler=tool("g++", "g++"), flags=flags, sets=sets_of(HOST))
    options = f"malloc_fill_byte=255:max_malloc_fill_size={1 << 30}:detect_stack_use_after_return=1"
    yield build.test(build.program(), 4000, ASAN_OPTIONS=options, UBSAN_OPTIONS="print_stacktrace=1")


def threads(build: Build) -> Iterator[str]:
    """ThreadSanitizer, with the test's own threads in place of OpenMP's.

    libgomp is not compiled for the sanitizer, which does not see how it hands work from thread to thread, and calls
    that a race.
    """
    flags = ("-O1", "-g", "-fsanitize=thread")
    build = replace(build, compiler=tool("g++", "g++"), flags=flags, own_threads=True, sets=sets_of(HOST))
    # Without random addresses: the sanitizer of GCC 12 does not start on kernels that use more bits for them.
    under = (tool("util-linux", "setarch"), "-R")
    yield build.test(build.program(), 300, under=under, TSAN_OPTIONS="halt_on_error=1")


def exports(build: Build) -> Iterator[str]:
    """Kernels compile without a warning, and export nothing but their table.

    A function that the linker may merge with others of its name (weak, in a COMDAT group) would perhaps be kept as
    compiled for AVX-512, and called on a processor without.
    """
    build = replace(build, compiler=tool("g++", "g++"), sets=sets_of(HOST))
    build.folder.mkdir(parents=True, exist_ok=True)
    for name in build.sets:
        made = str(build.kernels(name, "-Werror"))
        symbols = run([tool("binutils", "nm"), "--defined-only", "--extern-only", "--format=posix", "--demangle", made])
        # The pointer to the handler of exceptions in C++'s own library, which is the same for all processors.
        found = {line.rsplit(maxsplit=3)[0] for line in symbols.splitlines()} - {"DW.ref.__gxx_personality_v0"}
        if found != {f"saccade::{name}"}:
            raise Wrong(f"the kernels for {name} export something else than their table:\n{symbols}")
    yield f"{', '.join(build.sets)}: one exported symbol each, and no function that the linker may merge with another"


def aarch64(build: Build) -> Iterator[str]:
    """The kernels for NEON, compiled on another machine and run in an emulator."""
    if HOST == "aarch64":
        raise NotHere("this is aarch64: the way `plain` runs the kernels for NEON")
    compiler = tool("g++-aarch64-linux-gnu", "aarch64-linux-gnu-g++")
    emulator = tool("qemu-user", "qemu-aarch64-static", "qemu-aarch64")
    build = replace(build, compiler=compiler, sets=sets_of("aarch64"))
    yield build.test(build.program(), 400, under=(emulator, "-L", "/usr/aarch64-linux-gnu"), **PERTURB)


def old_x86(build: Build) -> Iterator[str]:
    """All kernels in one program, which chooses by the processor: emulated ones without AVX, and with AVX2."""
    only_on("x86_64", "these are its older processors")
    emulator = tool("qemu-user", "qemu-x86_64-static", "qemu-x86_64")
    build = replace(build, compiler=tool("g++", "g++"), sets=sets_of(HOST))
    program = build.program()
    canary = build.folder / "canary"
    canary.with_suffix(".cpp").write_text('int main() { asm volatile("vpxor %%ymm0, %%ymm0, %%ymm0" ::: "xmm0"); }\n')
    run([build.compiler, str(canary.with_suffix(".cpp")), "-o", str(canary)])
    for processor, expected in {"qemu64": "baseline", "Nehalem": "baseline", "Haswell": "avx2"}.items():
        under = (emulator, "-cpu", processor)
        if expected == "baseline":  # else this emulator would prove nothing
            run([*under, str(canary)], accept=(-4, 128 + 4))
        found = build.test(program, 300, "best", under=under, **PERTURB)
        if f"right in: {expected};" not in found:
            raise Wrong(f"on {processor}, {expected} should run: {found}")
        yield f"{processor}: {found}"
    # The module that is installed. Loaded by its file: torch would be slow there, and may need more of a processor.
    where = "from saccade.ops.deform_conv import _cpu; print(_cpu.__file__)"
    module = run([sys.executable, "-c", where]).strip().splitlines()[-1]
    script = MODULE_SCRIPT.format(module=module)
    for processor, expected in {"Nehalem": "baseline", "Haswell": "avx2 baseline"}.items():
        found = run([emulator, "-cpu", processor, sys.executable, "-c", script]).strip().splitlines()[-1]
        if found != f"{expected}, 10.0":
            raise Wrong(f"the installed module on {processor} should say '{expected}, 10.0': {found}")
        yield f"{processor}: the installed module has {expected}"


def halves() -> dict[str, list[str]]:
    """Return stand-ins for AVX-512: its vectors as two of AVX2 each, and its products of bfloat16 in plain C++."""
    flags = [*sets_of("x86_64")["avx2"], "-D__AVX512F__=1"]
    return {"avx512_in_halves": flags, "avx512_bf16_in_halves": [*flags, "-DSACCADE_TEST_PAIRS"]}


# Four pixels under a 2x2 kernel of ones. numpy: the module takes whatever knows DLPack.
MODULE_SCRIPT = """
import importlib.util, numpy
spec = importlib.util.spec_from_file_location("_cpu", {module!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
image = numpy.array([1, 2, 3, 4], "float32").reshape(1, 1, 2, 2)
offset, weight, out = (numpy.full(shape, value, "float32") for shape, value in
                       (((1, 8, 1, 1), 0), ((1, 1, 2, 2), 1), ((1, 1, 1, 1), numpy.nan)))
names = module.instruction_sets()
module.forward(names[0], image, offset, weight, None, None, [1, 1, 0, 0, 1, 1, 1, 1], 1, out)
print(" ".join(names), out.item(), sep=", ")
"""


def avx512(build: Build) -> Iterator[str]:
    """The kernels for AVX-512 where the processor has it; and anywhere with AVX2, with its vectors in two halves each.

    The latter runs the same code with the same sizes, but not the instructions. Neither qemu nor valgrind knows those.
    """
    only_on("x86_64", "AVX-512 is its")
    sets = sets_of(HOST)
    build = replace(build, compiler=tool("g++", "g++"), sets=halves() | sets, unasked=tuple(halves()))
    if " avx2 " not in Path("/proc/cpuinfo").read_text():
        raise NotHere("this processor does not even have AVX2")
    program = build.program()
    for name in halves():
        yield build.test(program, 2000, name, **PERTURB)
    for name in sets:
        if name.startswith("avx512"):
            found = run([str(program), "0"])
            if f"{name}: this processor has it" in found:
                yield build.test(program, 5000, name, **PERTURB)
            else:
                yield f"{name}: compiled only; this processor does not have it"


WAYS: dict[str, Callable[[Build], Iterator[str]]] = {
    "plain": plain,
    "clang": clang,
    "address": address,
    "threads": threads,
    "exports": exports,
    "aarch64": aarch64,
    "old-x86": old_x86,
    "avx512": avx512,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", help=f"of {', '.join(WAYS)}; all of them by default")
    parser.add_argument("--cases", type=int, help="how many calls are drawn in each way; each has its own default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sources", type=Path, default=SOURCES, help="the folder of kernels.cpp")
    parser.add_argument("--keep", type=Path, help="build in this folder and leave it")
    given = parser.parse_args()
    if unknown := set(given.ways) - set(WAYS):
        parser.error(f"no way is called {', '.join(sorted(unknown))}; there are {', '.join(WAYS)}")
    codes = {0}
    holder = contextlib.nullcontext(given.keep) if given.keep else tempfile.TemporaryDirectory()
    with holder as folder:
        for way in given.ways or WAYS:
            start = time.monotonic()
            build = Build(Path(folder) / way, given.sources, given.seed, given.cases)
            try:
                for line in WAYS[way](build):
                    print(f"{way}: {line}", flush=True)
            except (Wrong, Missing, NotHere) as problem:
                print(f"{way}: {type(problem).__name__}: {problem}", flush=True)
                codes.add(problem.code)
            print(f"{way}: {time.monotonic() - start:.0f} s", flush=True)
    # Something wrong says more than something missing, and that more than something that cannot be here.
    return next(code for code in (1, 2, 3, 0) if code in codes)


if __name__ == "__main__":
    sys.exit(main())
