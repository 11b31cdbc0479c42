#!/usr/bin/env python3
"""Times SecretFlow SPU (ABY3) and Trefoil in turn over an emulated network and prints paired ratios.

    wan.py --spu-python spu/bin/python --spu-script spu_bench.py --trefoil target/release/trefoil [--pairs 5]

SPU's three processes reach each other through proxy.py: each is given the proxy's port for every party but itself.
That takes two changes to the script, made in a temporary copy: fixed ports, and that list. Trefoil's links are wrapped
(`trefoil bench --network`), which agree.py compares with the same proxy. Both sides: secret weights, secret input.
"""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

from agree import free_ports, started

PARTIES = 3
PROXY = pathlib.Path(__file__).with_name("proxy.py")


def patched(script, folder, base):
    """A copy of SPU's script whose processes listen on fixed ports and call each other through the proxy."""
    text = script.read_text()
    changes = {
        "f'127.0.0.1:{p}'": f"f'127.0.0.1:{{p if i==a.party else p+{PARTIES}}}'",
        "so=socket.socket(); so.bind(('127.0.0.1',0)); ports.append(so.getsockname()[1]); socks.append(so)":
            f"ports.append({base}+i)",
    }
    for old, new in changes.items():
        if text.count(old) != 1:
            sys.exit(f"{script}: cannot be sent through a proxy: {old!r} is there {text.count(old)} times")
        text = text.replace(old, new)
    for helper in script.parent.glob("*.py"):
        shutil.copy(helper, folder)
    copy = pathlib.Path(folder) / script.name
    copy.write_text(text)
    return copy


def last_json(command):
    """The JSON object on the last line that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr[-800:]}")
    return json.loads(lines[-1])


def main():
    parser = argparse.ArgumentParser(description="SPU and Trefoil over an emulated network, in turn.")
    parser.add_argument("--spu-python", required=True)
    parser.add_argument("--spu-script", required=True, type=pathlib.Path)
    parser.add_argument("--trefoil", required=True)
    parser.add_argument("--network", default="wan")
    parser.add_argument("--net", default="A")
    parser.add_argument("--batch", default="1")
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    size = ["--net", args.net, "--batch", args.batch]
    ratios = []
    with tempfile.TemporaryDirectory() as folder, open(pathlib.Path(folder) / "proxy.log", "w") as log:
        base = free_ports(2 * PARTIES)
        script = patched(args.spu_script, folder, base)
        ways = [f"{base + PARTIES + i}=127.0.0.1:{base + i}" for i in range(PARTIES)]
        proxy = started([sys.executable, str(PROXY), "--network", args.network, *ways], log)
        try:
            for pair in range(args.pairs):
                spu = last_json([args.spu_python, str(script), *size, "--reps", "5"])["median_s"]
                row = last_json([args.trefoil, "bench", *size, "--network", args.network, "--runs", "5", "--json"])
                ours, online = row["total_s"], row["online_s"]
                ratios.append((spu / ours, spu / online))
                print(f"pair {pair + 1}: SPU {spu:.3f} s; Trefoil {ours:.3f} s, {online:.3f} s dealt ahead", flush=True)
        finally:
            proxy.terminate()
            proxy.wait()
    for name, values in zip(("everything", "dealt ahead"), zip(*ratios)):
        print(f"{name}: {statistics.median(values):.1f} times ({min(values):.1f} to {max(values):.1f})")


if __name__ == "__main__":
    main()
