"""Snaps the weights of a prepared release to those of a release on the hub, as far as its evaluations allow.

Rules:
- Files pair by the names of model and variant and their path. What has no partner, or no source here, stays exact.
- The most bits that pass are taken; when none do, the exact files are pushed, and the outcome says why. Bits that
  were asked for must pass.
- The same documents, files and release lead to the same release, so that a push can be repeated.
- It needs numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from skerry.client.client import Client
from skerry.client.snapping_evaluation import Evaluator
from skerry.client.snapping_report import SnapOutcome, VariantSnap
from skerry.client.snapping_variant import Candidate, SnappedVariant, VariantSnapping, Workshop
from skerry.client.source_files import SourceFile
from skerry.client.sources import PreparedRelease
from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Missing, Rejected
from skerry.spec.api import ReleaseView
from skerry.spec.model import FileSpec, Model, Snapped, Variant
from skerry.spec.release import Release

LADDER = (18, 14, 10)


class SnapRequest(msgspec.Struct, frozen=True):
    """What the publisher asks for; without `release` the newest is meant, without `bits` the most that pass.

    `directory` is where the documents are and evaluations run, `environment` what these see.
    """

    directory: Path
    environment: Mapping[str, str]
    release: str = ""
    bits: int | None = None


def snap_release(
    shop: Workshop, prepared: PreparedRelease, request: SnapRequest
) -> tuple[PreparedRelease, SnapOutcome]:
    """Return the release to push, snapped as far as its models allow, and what was done.

    Raises:
        Rejected: a model states no evaluation, its exact files do not pass it, or the bits that were asked for fail.
        Missing: there is no such release to snap to.
        Unavailable: the hub does not give the old files.
    """
    view = choose_partner(shop.client, prepared.release, request.release)
    if view is None:
        application = prepared.release.application.metadata.name
        return prepared, SnapOutcome("", f"the hub has no other release of {application} to snap to")
    partner = msgspec.convert(view.document, type=Release)
    work = [
        (model, variant, found)
        for model in prepared.release.models
        for variant in model.spec.variants
        if (found := candidates_of(model, variant, partner, prepared.sources))
    ]
    if not work:
        return prepared, SnapOutcome(view.name, f"no file of a model has changed since {view.name}")
    for model, _, _ in work:
        _check_evaluation(model)
    variants: dict[tuple[str, str, str], Variant] = {}
    sources = dict(prepared.sources)
    reports: list[VariantSnap] = []
    for model, variant, found in work:
        assert model.spec.evaluation is not None
        evaluator = Evaluator(model.spec.evaluation, request.directory, request.environment)
        ladder = LADDER if request.bits is None else (request.bits,)
        snapped = VariantSnapping(shop, evaluator, model, variant).run(found, ladder)
        _check_asked(request, snapped.report)
        reports.append(snapped.report)
        if snapped.sources:
            sources.update((file.digest, file) for file in snapped.sources.values())
            variants[_key(model, variant)] = _pinned(variant, snapped, view.name)
    outcome = SnapOutcome(view.name, variants=tuple(reports))
    return _with_variants(prepared, variants, sources), outcome


def choose_partner(client: Client, release: Release, named: str) -> ReleaseView | None:
    """Return the release to snap to, with its document: the one that is named, or the newest but this one.

    When this very release was pushed before, it is the one that was taken then, or else the newest before that.

    Raises:
        Rejected: the release itself is named.
        Missing: there is none of that name.
    """
    if named == release.name:
        raise Rejected("snap.itself", f"{named} cannot be snapped to itself", hint="name an older release")
    if named:
        return client.release(named)
    views = {view.name: view for view in client.releases(release.application.metadata.name)}
    own = views.pop(release.name, None)
    if own is not None:
        for name in _partners_of(msgspec.convert(client.release(own.name).document, type=Release)):
            try:
                return client.release(name)
            except Missing:
                continue  # it was removed since
    known = [view for view in views.values() if own is None or view.created_at < own.created_at]
    newest = max(known, key=lambda view: (view.created_at, view.name), default=None)
    return client.release(newest.name) if newest else None


def candidates_of(
    model: Model, variant: Variant, partner: Release, sources: Mapping[str, SourceFile]
) -> tuple[Candidate, ...]:
    """Return the files of a variant that have changed since the partner's, and are here."""
    old = {
        file.path: file
        for other in partner.models
        if other.metadata.name == model.metadata.name
        for its in other.spec.variants
        if its.name == variant.name
        for file in its.files
    }
    return tuple(
        Candidate(file.path, str(old[file.path].digest), old[file.path].size_bytes)
        for file in variant.files
        if file.path in old and old[file.path].digest != file.digest and str(file.digest) in sources
    )


def _partners_of(release: Release) -> list[str]:
    variants = (variant for model in release.models for variant in model.spec.variants)
    return sorted({variant.snapped.release for variant in variants if variant.snapped})


def _check_evaluation(model: Model) -> None:
    if model.spec.evaluation is None:
        message = f"model {model.metadata.name} does not say how snapped weights are to be judged"
        hint = "write spec.evaluation: {command: [...], metrics: {accuracy: {worse_by: 0.002}}}, or leave out --snap"
        raise Rejected("snap.no_evaluation", message, hint=hint)


def _check_asked(request: SnapRequest, report: VariantSnap) -> None:
    """Refuse when the very bits that were asked for do not pass."""
    failure = report.attempts[-1].failure if report.attempts else ""
    if request.bits is not None and failure:
        message = f"{report.model}/{report.variant} snapped by {request.bits} bits does not pass: {failure}"
        hint = "ask for fewer bits, or leave out --snap-bits to have the most that pass"
        raise Rejected("snap.worse", message, hint=hint)


def _key(model: Model, variant: Variant) -> tuple[str, str, str]:
    return model.metadata.name, model.spec.version, variant.name


def _pinned(variant: Variant, snapped: SnappedVariant, partner: str) -> Variant:
    files = tuple(
        FileSpec(path=file.path, digest=source.digest, size_bytes=source.size_bytes)
        if (source := snapped.sources.get(file.path))
        else file
        for file in variant.files
    )
    how = Snapped(release=partner, bits=snapped.report.bits, largest_error=snapped.largest_error)
    return msgspec.structs.replace(variant, files=files, snapped=how)


def _with_variants(
    prepared: PreparedRelease,
    variants: Mapping[tuple[str, str, str], Variant],
    sources: dict[str, SourceFile],
) -> PreparedRelease:
    """Return a release with some variants replaced."""
    if not variants:
        return prepared
    models: list[Model] = []
    for model in prepared.release.models:
        replaced = tuple(variants.get(_key(model, variant), variant) for variant in model.spec.variants)
        spec = msgspec.structs.replace(model.spec, variants=replaced)
        models.append(msgspec.structs.replace(model, spec=spec))
    release = msgspec.structs.replace(prepared.release, models=tuple(models))
    return PreparedRelease(release, encode_canonical(release), sources)
