"""The deployed federation on loopback: TLS, proxy, three sites with real label stores."""

from __future__ import annotations

import datetime
import io
import ipaddress
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image
from sklearn.datasets import load_digits

from edge_agent.inference import Predictor
from model_bundle.label_schema import LabelSchema
from model_bundle.manifest import unpack
from model_bundle.signing import verify
from review_portal.core.model import Kind, MaskView, NewItem
from review_portal.label_store import ImportedItem, LabelStore
from review_portal.store.campaigns import NewCampaign, settings_of
from review_portal.store.items import Intake
from simulations.demo.supervisor import free_ports

pytestmark = [pytest.mark.federation, pytest.mark.journey, pytest.mark.timeout(1200)]
CAMPAIGN = bytes(range(16))
SITES = ("east", "north", "south")
PEM = serialization.Encoding.PEM
PKCS8, PLAIN = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
RULES = {"rounds": 6, "round_timeout_seconds": 180, "node_wait_seconds": 180}


def make_identity(folder: Path) -> Ed25519PrivateKey:
    """A throw-away authority, one server certificate, and a release key."""
    folder.mkdir(parents=True)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)

    def builder(
        subject: x509.Name, public_key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        end = start + datetime.timedelta(days=2)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(name)
        made = made.public_key(public_key).serial_number(x509.random_serial_number())
        return made.not_valid_before(start).not_valid_after(end)

    authority = builder(name, authority_key.public_key())
    authority = authority.add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    signed = authority.sign(authority_key, hashes.SHA256())
    host = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    leaf = builder(x509.Name([]), key.public_key())
    leaf = leaf.add_extension(x509.SubjectAlternativeName([host]), critical=True)
    certificate = leaf.sign(authority_key, hashes.SHA256())
    release = Ed25519PrivateKey.generate()
    (folder / "ca.pem").write_bytes(signed.public_bytes(PEM))
    (folder / "superlink.pem").write_bytes(certificate.public_bytes(PEM))
    (folder / "superlink.key").write_bytes(key.private_bytes(PEM, PKCS8, PLAIN))
    (folder / "release.key").write_bytes(release.private_bytes(PEM, PKCS8, PLAIN))
    return release


def make_node_key(folder: Path, authority: bytes) -> bytes:
    folder.mkdir(parents=True)
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(PEM, serialization.PrivateFormat.OpenSSH, PLAIN)
    (folder / "node_key").write_bytes(private)
    (folder / "ca.pem").write_bytes(authority)
    public = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(*public)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray((image * 15.9).astype(np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


def fill_label_store(folder: Path, site: int, *, labels: int = 90, tests: int = 60) -> None:
    """Real digits, each site with a different mix of classes."""
    digits, rng = load_digits(), np.random.default_rng(site)
    weight = np.where((digits.target + 3 * site) % 10 < 5, 6.0, 1.0)
    train = rng.choice(1300, labels, replace=False, p=weight[:1300] / weight[:1300].sum())
    test = 1300 + rng.choice(len(digits.target) - 1300, tests, replace=False)
    with LabelStore.open(folder) as store:
        schema = LabelSchema(tuple(str(digit) for digit in range(10)))
        store.put_campaign(NewCampaign(CAMPAIGN, "digits", Kind("image"), schema), time.time())
        settings = store.database.read(lambda c: settings_of(c, CAMPAIGN))
        intake = Intake(store.campaign("digits"), settings, store.keys, time.time())
        mask = MaskView("none", "none", verified=False)
        new = []
        for split, chosen in (("train", train), ("test", test)):
            for i in chosen:
                number = int(i).to_bytes(8, "big") + site.to_bytes(8, "big")
                content = png(digits.images[i])
                item = NewItem(number, CAMPAIGN, Kind("image"), content, mask, split=split)
                new.append(ImportedItem(item, str(digits.target[i])))
        assert store.import_items(intake, new) == labels + tests


class Deployment:
    """All processes of a small federation, each started by its own command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.central = folder / "central"
        self.release = make_identity(self.central / "identity")
        self.superlink, self.proxy = (f"127.0.0.1:{port}" for port in free_ports(2))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._write_central()
        for number, site in enumerate(SITES):
            self._write_site(site, number)

    def _write_central(self) -> None:
        identity, nodes = self.central / "identity", self.central / "nodes"
        nodes.mkdir()
        common = (
            f'certificate = "{identity}/superlink.pem"\nprivate_key = "{identity}/superlink.key"\n'
        )
        common += f'authority = "{identity}/ca.pem"\n'
        (self.folder / "superlink.toml").write_text(
            f'work = "{self.central}/flower"\naddress = "{self.superlink}"\n'
            f'nodes = "{nodes}"\n{common}'
        )
        (self.folder / "proxy.toml").write_text(
            f'address = "{self.proxy}"\nsuperlink = "{self.superlink}"\n{common}'
        )

    def _write_site(self, site: str, number: int) -> None:
        place = self.folder / site
        authority = (self.central / "identity" / "ca.pem").read_bytes()
        public = make_node_key(place / "identity", authority)
        (self.central / "nodes" / f"{site}.node-1.pub").write_bytes(public)
        fill_label_store(place / "labels", number)
        (place / "trainer.toml").write_text('label_store = "labels"\nsocket = "trainer.sock"\n')
        (place / "node.toml").write_text(
            f'work = "flower"\nidentity = "identity"\nproxy = "{self.proxy}"\n'
            'trainer_socket = "trainer.sock"\n'
        )

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "federation", *arguments], stdout=log, stderr=log
            )
        return self.processes[name]

    def start_trainer(self, site: str) -> None:
        self.start(f"trainer-{site}", "trainer", str(self.folder / site / "trainer.toml"))

    def start_all(self) -> None:
        self.start("superlink", "superlink", str(self.folder / "superlink.toml"))
        self.start("proxy", "proxy", str(self.folder / "proxy.toml"))
        for site in SITES:
            self.start_trainer(site)
            self.start(f"node-{site}", "supernode", str(self.folder / site / "node.toml"))
        registered = self.central / "nodes" / "registered.json"
        wait_until(registered.exists, 180, "nodes registered")

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def request(self, run: int, **changes: object) -> Path:
        folder = self.central / "training" / CAMPAIGN.hex() / f"run-{run}"
        folder.mkdir(parents=True)
        identity = self.central / "identity"
        values = {
            "campaign_id": CAMPAIGN.hex(),
            "run": run,
            "version": run + 1,
            "parent_version": run,
            "parent_bundle": f"../run-{run - 1}/bundle" if run else None,
            "family": "image",
            "label_schema": {"classes": [str(digit) for digit in range(10)], "version": 1},
            "features": {"kind": "image", "height": 8, "width": 8},
            "seed": 5,
            "label_counts": dict.fromkeys(SITES, 90),
            "created_at": int(time.time()),
            "expires_at": int(time.time()) + 86_400,
            "release_key": str(identity / "release.key"),
            "superlink": self.superlink,
            "superlink_authority": str(identity / "ca.pem"),
            "nodes": str(self.central / "nodes"),
            "settings": RULES,
        }
        (folder / "request.json").write_text(json.dumps(values | changes))
        return folder

    def first_model(self) -> None:
        folder = self.request(0)
        command = [sys.executable, "-m", "federation", "init-model", str(folder / "request.json")]
        subprocess.run(command, check=True, timeout=180)

    def train(self, folder: Path) -> subprocess.Popen[bytes]:
        return self.start(f"train-{folder.name}", "train", str(folder / "request.json"))

    def logs(self) -> str:
        texts = [
            f"== {p}\n{p.read_text(errors='replace')[-4000:]}" for p in self.folder.rglob("*.log")
        ]
        return "\n".join(texts)

    def child_pid(self, name: str, part: str) -> int:
        """The process id of a supervisor's child whose command line holds `part`."""
        parent = self.processes[name].pid
        for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if part in command:
                return int(pid)
        raise AssertionError(f"{name} has no child {part}")


def wait_until(holds: Callable[[], object], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"waited {seconds} s for: {what}"
        time.sleep(0.05)


def state_of(folder: Path) -> dict[str, object]:
    path = folder / "state.json"
    return json.loads(path.read_text()) if path.exists() else {}


def assert_candidate(deployed: Deployment, folder: Path, *, accuracy: float) -> None:
    assert state_of(folder)["state"] == "candidate", deployed.logs()
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["accuracy"] > accuracy
    assert evaluation["example_count"] == 180
    bundle = unpack((folder / "bundle").read_bytes())
    verify(bundle, [deployed.release.public_key().public_bytes_raw()])
    assert sorted(p.name for p in folder.glob("round-*")) == [f"round-{i:05d}" for i in range(1, 7)]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = Deployment(tmp_path_factory.mktemp("fed"))
    made.start_all()
    made.first_model()
    try:
        yield made
    finally:
        made.stop()


def test_a_deployed_run_ends_in_a_signed_better_model(deployed: Deployment) -> None:
    folder = deployed.request(1)
    began = time.monotonic()
    assert deployed.train(folder).wait(timeout=480) == 0, deployed.logs()
    print(f"\na deployed run of {RULES['rounds']} rounds took {time.monotonic() - began:.1f} s")
    assert_candidate(deployed, folder, accuracy=0.85)
    assert not (deployed.central / "nodes").joinpath("east").exists()


def test_a_deployed_first_version_has_a_layer_and_cells_that_the_sites_found_and_learns_on_it(
    deployed: Deployment,
) -> None:
    network = {"unsupervised_width": 48, "filter_count": 64, "ensemble_size": 4}
    folder = deployed.request(
        9,
        version=1,
        parent_version=0,
        parent_bundle=None,
        network=network,
        first_label_count=24,
    )
    command = [sys.executable, "-m", "federation", "init-model", str(folder / "request.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr + deployed.logs()
    facts = json.loads((folder / "survey.json").read_text())
    assert (facts["fitted"], facts["cells"], facts["stages"]) == (True, 24, 26), facts
    assert sorted(facts["samples"]) == list(SITES)
    bundle = unpack((folder / "bundle").read_bytes())
    verify(bundle, [deployed.release.public_key().public_bytes_raw()])
    predictor = Predictor(bundle)
    assert predictor.code_book.shape == (24, 48)
    assert not predictor.needs_coverage(alone=False)

    following = deployed.request(
        10,
        version=2,
        parent_version=1,
        parent_bundle=str(folder / "bundle"),
        network=network,
        settings={**RULES, "input_views": 8},
    )
    assert deployed.train(following).wait(timeout=480) == 0, deployed.logs()
    assert_candidate(deployed, following, accuracy=0.85)


def test_a_superlink_killed_in_mid_round_loses_no_run(deployed: Deployment) -> None:
    folder = deployed.request(2)
    process = deployed.train(folder)
    wait_until((folder / "round-00002").exists, 300, "two rounds")
    os.kill(deployed.child_pid("superlink", "flower-superlink"), signal.SIGKILL)
    assert process.wait(timeout=480) == 0, deployed.logs()
    assert_candidate(deployed, folder, accuracy=0.85)


def test_a_trainer_killed_in_mid_round_is_waited_for(deployed: Deployment) -> None:
    folder = deployed.request(3)
    process = deployed.train(folder)
    wait_until((folder / "round-00001").exists, 300, "one round")
    victim = deployed.processes["trainer-north"]
    victim.kill()
    victim.wait()
    time.sleep(1.0)
    deployed.start_trainer("north")
    assert process.wait(timeout=480) == 0, deployed.logs()
    assert_candidate(deployed, folder, accuracy=0.85)
    for number in range(1, 7):
        facts = json.loads((folder / f"round-{number:05d}" / "round.json").read_text())["facts"]
        assert sorted(facts["sites"]) == list(SITES), facts


def test_a_train_command_killed_in_mid_run_finds_its_run_again(deployed: Deployment) -> None:
    folder = deployed.request(4)
    process = deployed.train(folder)
    wait_until((folder / "round-00001").exists, 300, "one round")
    process.kill()
    process.wait()
    assert deployed.train(folder).wait(timeout=480) == 0, deployed.logs()
    assert_candidate(deployed, folder, accuracy=0.85)
    log = (deployed.folder / "train-run-4.log").read_text()
    assert log.count("is run ") == 1


def test_only_fleet_paths_are_published(deployed: Deployment) -> None:
    context = ssl.create_default_context(cafile=deployed.central / "identity" / "ca.pem")
    with httpx.Client(base_url=f"https://{deployed.proxy}", verify=context, timeout=60) as client:
        hidden = ["/v1/control/start-run", "/v1/control/list-runs", "/v1/runtime/acquire-task"]
        hidden += ["/docs", "/openapi.json", "/", "/v1/fleet/../control/list-runs"]
        hidden += ["/v1/fleet/%2e%2e/control/list-runs", "/v1/fleet//x", "/v1/fleet"]
        for path in hidden:
            for method in ("GET", "POST"):
                assert client.request(method, path).status_code == 404, (method, path)
        headers = {"content-type": "application/protobuf"}
        anonymous = client.post("/v1/fleet/pull-messages", headers=headers)
        assert anonymous.status_code in (401, 403)


def test_an_unknown_node_is_refused(deployed: Deployment) -> None:
    place = deployed.folder / "stranger"
    authority = (deployed.central / "identity" / "ca.pem").read_bytes()
    make_node_key(place / "identity", authority)
    command = [sys.executable, "-m", "federation.node_process", "--superlink", deployed.proxy]
    command += ["--root-certificates", str(place / "identity" / "ca.pem")]
    command += ["--auth-supernode-private-key", str(place / "identity" / "node_key")]
    command += ["--isolation", "process", "--port", str(free_ports(1)[0])]
    environment = {**os.environ, "FLWR_HOME": str(place), "FLWR_TELEMETRY_ENABLED": "0"}
    environment["FLWR_DISABLE_UPDATE_CHECK"] = "1"
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=180, check=False)
    assert ended.returncode != 0
    assert (
        len(json.loads((deployed.central / "nodes" / "registered.json").read_text())["nodes"]) == 3
    )
