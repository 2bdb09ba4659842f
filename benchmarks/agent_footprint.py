"""What the agent costs a device: start, memory and speed of the daemon, measured from outside.

    python -m benchmarks.agent_footprint [--samples 5000]

A fresh process builds the real daemon on a state folder with two campaigns (text and image, models
of the default sizes), scores a pool of each with the coordinator out of reach, and is looked at
through /proc. Masking runs in a process of its own and is not part of these numbers.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

TEXT_WORDS = 40
TARGET_RESIDENT_MB = 120


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=5000, help="samples in each pool")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return measure(Path(arguments.child))
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), arguments.samples)
        command = [sys.executable, "-m", "benchmarks.agent_footprint", "--child", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout.splitlines()[-1])
    print(f"{'stage':<34}{'CPU s':>8}{'wall s':>8}{'MB':>8}{'samples/CPU s':>15}")
    print(f"{'perimeter-agent --help':<34}{'':>8}{help_seconds():>8.2f}")
    for row in rows:
        rate = f"{row['rate']:.0f}" if row["rate"] else ""
        print(
            f"{row['stage']:<34}{row['cpu']:>8.2f}{row['wall']:>8.2f}{row['resident']:>8.0f}"
            f"{rate:>15}"
        )
    print(f"goal: at most {TARGET_RESIDENT_MB} MB at rest; peak {rows[-1]['peak']:.0f} MB")
    return 0


def help_seconds() -> float:
    """Shortest of five runs of `--help`, in seconds."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "edge_agent", "--help"], capture_output=True, check=True
        )
        times.append(time.perf_counter() - begin)
    return min(times)


def prepare(folder: Path, samples: int) -> None:
    """Makes an enrolled state folder with two campaigns, their models and their samples."""
    from edge_agent.config import load_config
    from edge_agent.queue.installs import InstallBook
    from edge_agent.queue.stores import open_stores

    (folder / "agent.toml").write_text(config_text(folder))
    (folder / "samples").write_text(str(samples))
    config = load_config(folder / "agent.toml", {})
    release_key = make_identity(config.state_folder / "identity")
    stores = open_stores(config)
    for number, kind in enumerate(("text", "image"), 1):
        campaign_id = bytes([number]) * 16
        stores.campaigns.record([campaign(campaign_id, kind)])
        path = config.state_folder / "models" / campaign_id.hex() / "000000001.bundle"
        path.parent.mkdir(parents=True)
        path.write_bytes(model(campaign_id, kind, release_key))
        InstallBook(stores.database).switch(campaign_id, 1)
        stores.samples.add(campaign_id, kind, contents(kind, samples))
    stores.database.close()


def config_text(folder: Path) -> str:
    """A configuration with one empty folder for each campaign."""
    text = f'state = "{folder}/state"\ncoordinator = "127.0.0.1:1"\n'
    for kind in ("text", "image"):
        (folder / kind).mkdir()
        text += (
            f'[[sources]]\nname = "{kind}"\ncampaign = "{kind}"\nkind = "{kind}"\n'
            f'type = "folder"\npath = "{folder}/{kind}"\n'
        )
    return text


def make_identity(folder: Path) -> object:
    """Writes a self-made identity; returns the key that signs bundles."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    folder.mkdir(parents=True)
    key, release = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "benchmark")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "cert.pem").write_bytes(pem)
    (folder / "ca.pem").write_bytes(pem)
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    for file in ("release.pub", "grant.pub"):
        (folder / file).write_bytes(release.public_key().public_bytes_raw())
    described = {"site_id": "s", "name": "a", "trust_domain": "b", "coordinator": "127.0.0.1:1"}
    (folder / "identity.json").write_text(json.dumps(described))
    return release


def campaign(campaign_id: bytes, kind: str) -> object:
    """The description of a campaign with ten classes."""
    from perimeter.v1 import model_pb2

    return model_pb2.Campaign(
        campaign_id=campaign_id,
        name=kind,
        kind=kind,
        view="raw",
        label_schema_json=schema().canonical_json(),
    )


def schema() -> object:
    """Ten classes."""
    from model_bundle.label_schema import LabelSchema

    return LabelSchema(tuple(f"class {n}" for n in range(10)))


def model(campaign_id: bytes, kind: str, release_key: object) -> bytes:
    """An untrained model of the default size, signed."""
    import numpy as np

    from federation.networks import NetworkSpec, initial_arrays
    from federation.onnx_engine import build
    from model_bundle import signing
    from model_bundle.features import FeatureSpec
    from model_bundle.manifest import Bundle, ModelManifest, describe_parts, pack

    spec = NetworkSpec(family=kind, features=FeatureSpec(kind), class_count=10)
    rng = np.random.default_rng(0)
    parts = {
        "model.onnx": build(spec, initial_arrays(spec, seed=0)),
        "code_book.f32": rng.normal(size=(256, spec.embedding_width)).astype("<f4").tobytes(),
    }
    manifest = ModelManifest(
        campaign_id=campaign_id.hex(),
        version=1,
        parent_version=0,
        family=kind,
        label_schema=schema(),
        features=spec.features,
        embedding_width=spec.embedding_width,
        cell_count=256,
        temperature=1.0,
        created_at=0,
        expires_at=4_000_000_000,
        parts=describe_parts(parts),
    )
    return pack(signing.signed(Bundle(manifest, (), parts), release_key))


def contents(kind: str, count: int) -> list[bytes]:
    """Texts of forty words from a vocabulary of 20,000, or noisy 28 x 28 images."""
    import numpy as np

    rng = np.random.default_rng(1)
    if kind == "text":
        words = rng.integers(0, 20_000, size=(count, TEXT_WORDS))
        return [" ".join(f"w{word:x}" for word in row).encode() for row in words]
    import io

    from PIL import Image

    pictures = []
    for pixels in rng.integers(0, 256, size=(count, 28, 28), dtype=np.uint8):
        stored = io.BytesIO()
        Image.fromarray(pixels).save(stored, "PNG")
        pictures.append(stored.getvalue())
    return pictures


def measure(folder: Path) -> int:
    """Runs the daemon and prints one JSON row for each stage."""
    rows = []
    begin_cpu, begin_wall = 0.0, time.perf_counter()

    def note(stage: str, samples: int = 0) -> None:
        nonlocal begin_cpu, begin_wall
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu, wall = usage.ru_utime + usage.ru_stime, time.perf_counter()
        spent = cpu - begin_cpu
        rows.append(
            {
                "stage": stage,
                "cpu": spent,
                "wall": wall - begin_wall,
                "resident": resident_mb("VmRSS"),
                "peak": resident_mb("VmHWM"),
                "rate": samples / spent if samples else 0,
            }
        )
        begin_cpu, begin_wall = cpu, wall

    from edge_agent.assembly import build_daemon
    from edge_agent.config import load_config
    from edge_agent.memory import keep_memory_small, return_free_memory

    keep_memory_small()
    note("interpreter and imports")
    daemon = build_daemon(load_config(folder / "agent.toml", {}), time.time, Random(0))
    note("state opened, two models loaded")
    scorers = {s.campaign.name: s for s in daemon.scorers.values()}
    for kind, scorer in scorers.items():
        while not scorer.is_done:
            scorer.turn(time.time())
        note(f"pool scored and sealed: {kind}", sample_count(folder))
    daemon.tick(time.time())
    return_free_memory()
    note("at rest")
    daemon.close()
    print(json.dumps(rows))
    return 0


def sample_count(folder: Path) -> int:
    """Samples in one pool; both have as many."""
    return int((folder / "samples").read_text())


def resident_mb(field: str) -> float:
    """A field of /proc/self/status in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    sys.exit(main())
