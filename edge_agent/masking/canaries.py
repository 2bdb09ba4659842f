"""Texts that must be masked before any real one is. Presidio's list of abilities may be wrong."""

from edge_agent.masking.seam import Masked, Masker

CANARIES = (
    ("CREDIT_CARD", "Please charge {} today.", "4111 1111 1111 1111"),
    ("EMAIL_ADDRESS", "Write to {} soon.", "canary@plant7.internal"),
    ("IBAN_CODE", "Transfer it to {} please.", "DE89370400440532013000"),
    ("IP_ADDRESS", "The host is {} there.", "192.168.77.12"),
    ("US_SSN", "My social security number is {} ok.", "219-09-9999"),
    ("PHONE_NUMBER", "Call me at {} tonight.", "+1 202-555-0147"),
    ("PERSON", "My name is {} and I called twice.", "Katherine Fisher"),
    ("LOCATION", "She lives at {} now.", "12 Oak Street"),
    ("DATE_TIME", "Born on {} in winter.", "3 February 1984"),
    ("SECRET", "The password is {} for now.", "hunter2x"),
    ("DISGUISED", "Write to {} soon.", "can\u200bary＠example.com"),
)
"""Entity type, sentence, value; every value is made up."""


def failed_canaries(masker: Masker, *, language: str = "") -> list[str]:
    """Names of canaries whose value is still shown; empty when all is well.

    Args:
        masker: What to try.
        language: Language to claim; the first that the policy covers when empty.
    """
    failed = []
    for name, sentence, value in CANARIES:
        answer = masker.mask(sentence.format(value), language=language or "en")
        if not isinstance(answer, Masked) or value.casefold() in answer.text.casefold():
            failed.append(name)
    return failed
