"""Checks that Trefoil's two emulations of a network agree: its own wrapper of links, and proxy.py between its servers.

    python3 agree.py path/to/trefoil --network wan --net A --batch 1

Starts three servers on loopback three times (no emulation, wrapper, proxy), shares a network with random weights and
prints what a request took: the median of several runs, each the mean of a few requests, with dealing. Fails if wrapper
and proxy differ by more than --within of the larger.
"""

import argparse
import json
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

PARTIES = ("alice", "bob", "carol")
PROXY = pathlib.Path(__file__).with_name("proxy.py")


def free_ports(count):
    """The first of so many free ports in a row."""
    for base in range(20000, 30000, count):
        taken = []
        try:
            for port in range(base, base + count):
                taken.append(socket.create_server(("127.0.0.1", port)))
            return base
        except OSError:
            continue
        finally:
            for s in taken:
                s.close()
    sys.exit("no free ports")


def started(command, log):
    """A process that has said its first line."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    if "ready" not in child.stdout.readline():
        sys.exit(f"{command[0]} did not start: see {log.name}")
    return child


def settled(command):
    """Standard output of a command that may fail while the servers look for each other."""
    for _ in range(60):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout
        time.sleep(0.2)
    sys.exit(f"{' '.join(command)}\n{done.stderr}")


def measure(args, how, folder):
    """Seconds of a request, rounds and bytes."""
    trefoil, base = args.trefoil, free_ports(5)
    keygen = ["keygen", "--all", "--out", str(folder), "--base-port", str(base), "--client", "owner:owner"]
    subprocess.run([trefoil, *keygen, "--client", "client", "--tcp"], check=True, capture_output=True)
    plain = (folder / "cluster.toml").read_text()
    children = []
    try:
        if how == "proxy":
            ways = [f"{base + 3 + i}=127.0.0.1:{base + i}" for i in range(2)]
            with open(folder / "proxy.log", "w") as log:
                children.append(started([sys.executable, str(PROXY), "--network", args.network, *ways], log))
        for number, party in enumerate(PARTIES):
            # Every server calls those before it: through the proxy, where there is one.
            text = plain
            for callee in range(min(number, 2) if how == "proxy" else 0):
                text = text.replace(f":{base + callee}", f":{base + 3 + callee}")
            cluster = folder / f"{party}.toml"
            cluster.write_text(text)
            command = [trefoil, "server", "--party", party, "--config", str(cluster), "--until-stdin-closes"]
            command += ["--store", str(folder / f"{party}.store"), "--store-key", str(folder / f"{party}.storekey")]
            if how == "wrapper":
                command += ["--network", args.network]
            with open(folder / f"{party}.log", "w") as log:
                children.append(started(command, log))
        ask = ["--config", str(folder / "cluster.toml"), "--identity"]
        settled([trefoil, "share", f"net:{args.net}", "--as", "m", "--yes", *ask, str(folder / "owner")])
        data = str(folder / "digits")
        count = args.requests * args.batch
        subprocess.run([trefoil, "data", "digits", "--count", str(6 * count), "--out", data], check=True, capture_output=True)
        ask = ["evaluate", "--model", "m", "--data", data, "--json", *ask, str(folder / "client"), "--batch", str(args.batch)]
        settled([trefoil, *ask, "--count", str(args.batch)])
        runs = [json.loads(settled([trefoil, *ask, "--count", str(count)])) for _ in range(args.runs)]
        seconds = statistics.median(r["seconds"] for r in runs) / args.requests
        return seconds, runs[0]["rounds"] // args.requests, runs[0]["bytes_online"] // args.requests
    finally:
        for child in reversed(children):
            child.stdin.close()
            child.terminate()
            child.wait()


def main():
    parser = argparse.ArgumentParser(description="Checks that the two emulations of a network agree.")
    parser.add_argument("trefoil", help="the trefoil binary")
    parser.add_argument("--network", default="wan")
    parser.add_argument("--net", default="A")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--requests", type=int, default=5, help="requests in a run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--within", type=float, default=0.1, help="largest difference, a part of 1")
    args = parser.parse_args()
    took = {}
    for how in ("none", "wrapper", "proxy"):
        with tempfile.TemporaryDirectory() as folder:
            seconds, rounds, size = measure(args, how, pathlib.Path(folder) / "trial")
        took[how] = seconds
        row = {"emulation": how, "network": None if how == "none" else args.network, "net": args.net, "batch": args.batch}
        print(json.dumps({**row, "seconds": round(seconds, 5), "rounds": rounds, "bytes_online": size}), flush=True)
    apart = abs(took["wrapper"] - took["proxy"]) / max(took["wrapper"], took["proxy"])
    print(f"wrapper and proxy differ by {100 * apart:.1f} %")
    sys.exit(apart > args.within)


if __name__ == "__main__":
    main()
