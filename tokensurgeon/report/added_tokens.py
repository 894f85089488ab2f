"""What added tokens do to a text, in lines for the terminal and the card."""

from __future__ import annotations

from tokensurgeon.report import words
from tokensurgeon.report.surgery_report import SurgeryReport


def lines(report: SurgeryReport) -> list[tuple[str, str]]:
    """Return labelled lines; none where the target is no extension of the source."""
    facts = report.extension
    if facts is None:
        return []
    added = words.count(facts["added"], "new token")
    reach = f"{facts['unreachable']:,} of them that no text is encoded into"
    if not facts["bytes"]:
        return [("added", f"{added}, {reach}")]
    occur = f"({words.percent(facts['used_share'])}) occur in the text measured on"
    used = f"{facts['used']:,} of them {occur}"
    share = f"{100 * facts['share_of_tokens']:.1f} % of its tokens"
    per_token = f"{facts['bytes_per_token_before']:.3f} → {facts['bytes_per_token']:.3f}"
    saved = f"{100 * facts['tokens_saved']:.1f} % fewer; bytes per token {per_token}"
    longer = f"{facts['longer']:,} of {words.count(facts['documents'], 'document')}"
    return [
        ("added", f"{added}: {used}, {share}; {reach}"),
        (
            "tokens",
            f"{facts['tokens_before']:,} → {facts['tokens']:,} on {words.size(facts['bytes'])} of "
            f"that text ({saved}); more than before in {longer}",
        ),
    ]
