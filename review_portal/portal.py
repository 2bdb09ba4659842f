"""One running portal: its settings, its store, and who may enter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from review_portal.access import Access, read_secret
from review_portal.config import PortalConfig
from review_portal.coordinator_link import CoordinatorLink
from review_portal.egress.archive import EgressArchive
from review_portal.hints import Hints
from review_portal.label_store import LabelStore
from review_portal.quality_reports import QualityReports
from review_portal.texts import Catalogues, load_catalogues
from review_portal.unmask_words import HeldWords

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Portal:
    """What routes work with.

    Attributes:
        config: Settings.
        store: The label store.
        access: People and their sessions.
        clock: Seconds since the epoch.
        secret: The portal's own key, 32 bytes.
        catalogues: Texts of the pages by language.
        egress: Record of what left the site.
        link: To the coordinator; None while the portal is not enrolled.
        wake: Asks the link for a turn.
        quality: Quality of each campaign.
        words: Raw words of devices, each for one viewing; shared with the intake.
        hints: Adds calibrated confidence and typical words to items; None leaves them out.
    """

    config: PortalConfig
    store: LabelStore
    access: Access
    clock: Callable[[], float]
    secret: bytes
    catalogues: Catalogues
    egress: EgressArchive
    quality: QualityReports
    link: CoordinatorLink | None = None
    wake: Callable[[], None] = field(default=lambda: None)
    words: HeldWords = field(default_factory=HeldWords)
    hints: Hints | None = None

    @property
    def uses_tls(self) -> bool:
        """Whether browsers come over HTTPS."""
        return self.config.web_tls != "off"


def open_portal(
    config: PortalConfig,
    *,
    clock: Callable[[], float],
    store: LabelStore,
    link: CoordinatorLink | None = None,
) -> Portal:
    """Puts a portal together: reads its key and its texts."""
    secret = read_secret(config.folder)
    quality = QualityReports(store.database)
    return Portal(
        config=config,
        store=store,
        access=Access(store.database, config, clock=clock, secret=secret),
        clock=clock,
        secret=secret,
        catalogues=load_catalogues(PACKAGE / "locales"),
        egress=EgressArchive(config.folder),
        quality=quality,
        link=link,
        hints=Hints(store, clock, quality),
        wake=link.wake if link is not None else lambda: None,
    )
