"""Ten garments drawn by code, with Fashion-MNIST's classes in its order: the silhouettes behind the stand-in.

Every function takes (rng, u, v) from `fdl.data.standins.draw.canvas` and returns the cloth: brightness [n, H, W] in [0, 1]. The
tops (T-shirt, pullover, coat, shirt) are one pattern with overlapping lengths of sleeve and kinds of front, as in a
shop: they must be hard to tell apart, not impossible.
"""

from __future__ import annotations

import numpy as np

from fdl.data.standins.draw import Grid, box, canvas, chance, ellipse, limb, photograph, profile, soft, uniform

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def draw(rng: np.random.Generator, label: int, n: int) -> np.ndarray:
    """Draw n pictures of one class, uint8 [n, 28, 28, 1]."""
    turn, wave = (7, 0.03) if label in (5, 7, 9) else (5, 0.04)
    u, v = canvas(rng, n, turn=turn, stretch=0.22, shift=2, wave=wave)
    shape = (_t_shirt, _trouser, _pullover, _dress, _coat, _sandal, _shirt, _sneaker, _bag, _ankle_boot)[label]
    return photograph(rng, shape(rng, u, v) * _cloth(rng, u, v), cover=0.35, noise=0.11)


def _cloth(rng: np.random.Generator, u: Grid, v: Grid) -> Grid:
    """Draw the fabric's brightness: a tone, folds, and stripes, checks or a print on some."""
    n = len(u)
    tone = uniform(rng, n, 0.35, 1.0)
    for _ in range(2):
        lean = uniform(rng, n, -0.8, 0.8)
        fold = np.sin(uniform(rng, n, 3, 11) * (u + lean * v) + uniform(rng, n, 0, 6.28))
        tone = tone * (1 - uniform(rng, n, 0.02, 0.17) * (1 + fold))
    stripes = np.sign(np.sin(uniform(rng, n, 8, 26) * v + uniform(rng, n, 0, 6.28)))
    bands = np.sign(np.sin(uniform(rng, n, 8, 26) * u + uniform(rng, n, 0, 6.28)))
    tone = tone * (1 - chance(rng, n, 0.22) * uniform(rng, n, 0.1, 0.55) * (0.5 + 0.5 * stripes))
    tone = tone * (1 - chance(rng, n, 0.12) * uniform(rng, n, 0.1, 0.45) * (0.5 + 0.5 * bands))
    print_ = ellipse(
        u,
        v,
        uniform(rng, n, -0.15, 0.15),
        uniform(rng, n, -0.4, 0.3),
        uniform(rng, n, 0.1, 0.3),
        uniform(rng, n, 0.1, 0.3),
    )
    return tone * (1 - chance(rng, n, 0.25) * uniform(rng, n, -0.3, 0.7) * print_)


def _top(
    rng: np.random.Generator, u: Grid, v: Grid, *, sleeve: Grid, hem: Grid, waist: Grid, neck: Grid, opening: Grid,
    collar: Grid, loose: Grid,
) -> Grid:  # fmt: skip
    """Draw the pattern of every top.

    Args:
        sleeve: length of the sleeves: 0 none, 1 to the hip.
        hem: where the body ends.
        waist: half width at the hem.
        neck: depth of the neckline.
        opening: how plainly the front shows its opening, 0 to 1.
        collar: how plainly a collar shows, 0 to 1.
        loose: half width of a sleeve at its end.
    """
    n = len(u)
    side = np.abs(u)
    shoulder = uniform(rng, n, 0.4, 0.5)
    body = box(
        side,
        v,
        -1.0,
        profile(v, (-0.8, -0.6, 0.1, 0.9), (shoulder - 0.18, shoulder, shoulder - 0.06, waist)),
        -0.82,
        hem,
    )
    lean = uniform(rng, n, 0.2, 0.4) + 0.45 * np.clip(1 - sleeve, 0, 1) * uniform(rng, n, 0.3, 1)
    reach = 0.1 + 1.25 * sleeve
    cuff = (shoulder - 0.1 + reach * np.sin(lean), -0.58 + reach * np.cos(lean))
    arms = limb(side, v, (shoulder - 0.1, -0.58), cuff, 0.19, loose) * soft(0.1 - sleeve)
    seam = soft(np.abs(side - shoulder + 0.02) - 0.01) * soft(-0.5 - v) * 0.25
    ink = np.maximum(body, arms * uniform(rng, n, 0.85, 1)) * (1 - seam)
    ink = ink * (1 - ellipse(u, v, 0.0, -0.86, uniform(rng, n, 0.14, 0.24), neck))
    front = soft(np.abs(u - uniform(rng, n, -0.04, 0.04)) - 0.03)
    buttons = front * (np.sin(v * uniform(rng, n, 14, 20)) > 0.4)
    kind = chance(rng, n, 0.5)
    ink = ink * (1 - opening * (kind * front + (1 - kind) * buttons) * 0.7)
    lapel = soft(np.abs(side - 0.22 * np.clip((v + 0.85) * -1.6 + 1, 0, 1)) - 0.04) * soft(v + 0.3)
    return ink * (1 - collar * lapel * 0.6)


def _t_shirt(rng: np.random.Generator, u: Grid, v: Grid) -> Grid:
    n = len(u)
    return _top(
        rng, u, v,
        sleeve=uniform(rng, n, 0.05, 0.48), hem=uniform(rng, n, 0.65, 0.95), waist=uniform(rng, n, 0.36, 0.5),
        neck=uniform(rng, n, 0.06, 0.3), opening=chance(rng, n, 0.08) * uniform(rng, n, 0.2, 0.6),
        collar=chance(rng, n, 0.08) * 0.5, loose=uniform(rng, n, 0.13, 0.2),
    )  # fmt: skip


def _pullover(rng: np.random.Generator, u: Grid, v: Grid) -> Grid:
    n = len(u)
    ink = _top(
        rng, u, v, sleeve=uniform(rng, n, 0.78, 1.08), hem=uniform(rng, n, 0.6, 0.9), waist=uniform(rng, n, 0.34, 0.46),
        neck=uniform(rng, n, 0.04, 0.16), opening=chance(rng, n, 0.06) * uniform(rng, n, 0.2, 0.6),
        collar=chance(rng, n, 0.08) * 0.6, loose=uniform(rng, n, 0.09, 0.14),
    )  # fmt: skip
    rib = soft(np.abs(v - uniform(rng, n, 0.5, 0.75)) - 0.03) * chance(rng, n, 0.6)
    return ink * (1 - 0.35 * rib)


def _coat(rng: np.random.Generator, u: Grid, v: Grid) -> Grid:
    n = len(u)
    return _top(
        rng, u, v, sleeve=uniform(rng, n, 0.85, 1.12), hem=uniform(rng, n, 0.8, 1.0), waist=uniform(rng, n, 0.44, 0.6),
        neck=uniform(rng, n, 0.04, 0.2), opening=chance(rng, n, 0.85) * uniform(rng, n, 0.3, 1.0),
        collar=chance(rng, n, 0.7) * uniform(rng, n, 0.3, 1.0), loose=uniform(rng, n, 0.1, 0.16),
    )  # fmt: skip


def _shirt(rng: np.random.Generator, u: Grid, v: Grid) -> Grid:
    n = len(u)
    long = chance(rng, n, 0.45)
    sleeve = long * uniform(rng, n, 0.7, 1.06) + (1 - long) * uniform(rng, n, 0.1, 0.55)
    return _top(
        rng, u, v, sleeve=sleeve, hem=uniform(rng, n, 0.65, 0.97), waist=uniform(rng, n, 0.36, 0.5),
        neck=uniform(rng, n, 0.05, 0.26), opening=chance(rng, n, 0.85) * uniform(rng, n, 0.3, 0.9),
        collar=chance(rng, n, 0.8) * uniform(rng, n, 0.3, 0.9), loose=uniform(rng, n, 0.1, 0.17),
    )  # fmt: skip


def _dress(rng: np.random.Generator, u: Grid, v: Grid) -> Grid:
    n = len(u)
    side, chest, flare = np.abs(u), uniform(rng, n, 0.2, 0.32), uniform(rng, n, 0.24, 0.56)
    waist = chest - uniform(rng, n, 0.0, 0.1)
    right = profile(v, (-0.9, -0.6, -0.1, 0.9), (chest - 0.08, chest, waist, flare))
    body = box(side, v, -1.0, right, -0.92, uniform(rng, n, 0.75, 1.0))
    reach, lean = uniform(rng, n, 0.05, 0.9), uniform(rng, n, 0.1, 0.5)
    end = (chest - 0.06 + reach * np.sin(lean), -0.7 + reach * np.cos(lean))
    arms = limb(side, v, (chest - 0.06, -0.7), end, 0.12, 0.08) * chance(rng, n, 0.5)
    neck = ellipse(u, v, 0.0, -0.95, uniform(rng, n, 0.08, 0.18), uniform(rng, n, 0.05, 0.35))
    belt = soft(np.abs(v + 0.1) - 0.04) * chance(rng, n, 0.3)
    return np.maximum(body, arms) * (1 - neck) * (1 - 0.5 * belt)


def _trouser(rng: np.random.Generator, u: Grid, v: Grid) -> Grid:
    n = len(u)
    side, hip, ankle = np.abs(u), uniform(rng, n, 0.26, 0.38), uniform(rng, n, 0.2, 0.5)
    outer = profile(v, (-0.95, -0.6, 0.9), (hip - 0.05, hip, ankle))
    legs = box(side, v, -1.0, outer, -0.95, uniform(rng, n, 0.7, 0.98))
    fork, width = uniform(rng, n, -0.5, 0.0), uniform(rng, n, 0.05, 0.22)
    gap = soft(side - width * np.clip((v - fork) / 1.2, 0, 1)) * soft(fork - v)
    crease = soft(side - 0.02) * soft(v - fork) * 0.4
    return legs * (1 - gap * uniform(rng, n, 0.6, 1)) * (1 - crease)


def _bag(rng: np.random.Generator, u: Grid, v: Grid) -> Grid:
    n = len(u)
    side, top, wide = np.abs(u), uniform(rng, n, -0.4, 0.05), uniform(rng, n, 0.5, 0.85)
    right = wide + uniform(rng, n, -0.15, 0.15) * (v - 0.2)
    body = box(side, v, -1.0, right, top, uniform(rng, n, 0.55, 0.85))
    rise = uniform(rng, n, 0.15, 0.75)
    outer = ellipse(u, v, 0.0, top, wide * 0.7, rise)
    inner = ellipse(u, v, 0.0, top, wide * 0.7 - uniform(rng, n, 0.08, 0.2), rise - 0.12)
    flap = soft(np.abs(v - top - uniform(rng, n, 0.15, 0.4)) - 0.03) * chance(rng, n, 0.6)
    clasp = ellipse(u, v, 0.0, top + 0.25, 0.1, 0.08) * chance(rng, n, 0.4)
    handle = np.clip(outer - inner, 0, 1) * chance(rng, n, 0.85)
    return np.maximum(body * (1 - 0.5 * flap) * (1 - 0.6 * clasp), handle)


def _shoe(rng: np.random.Generator, u: Grid, v: Grid, *, shaft: Grid, heel: Grid) -> tuple[Grid, Grid]:
    """Draw a shoe seen from its side, toe to the left: (upper, sole).

    Args:
        shaft: how high the heel's side rises over the toe's.
        heel: height of the heel block.
    """
    n = len(u)
    ground = uniform(rng, n, 0.45, 0.65)
    toe, instep = ground - uniform(rng, n, 0.18, 0.34), ground - uniform(rng, n, 0.36, 0.55)
    top = profile(
        u, (-0.92, -0.75, -0.15, 0.15, 0.8), (ground - 0.08, toe, instep, instep - shaft, instep - shaft - 0.03)
    )
    arch = ground - heel * np.clip((u + 0.3) / 0.6, 0, 1)
    upper = box(u, v, -0.92, profile(v, (-0.8, 0.2), (uniform(rng, n, 0.62, 0.8), 0.86)), top, arch)
    thick = uniform(rng, n, 0.05, 0.15)
    sole = box(u, v, -0.93, 0.88, arch, arch + thick)
    block = box(u, v, uniform(rng, n, 0.45, 0.68), 0.86, arch, ground + thick) * (heel > 0.12)
    return upper, np.maximum(sole, block)


def _sneaker(rng: np.random.Generator, u: Grid, v: Grid) -> Grid:
    n = len(u)
    upper, sole = _shoe(rng, u, v, shaft=uniform(rng, n, -0.06, 0.32), heel=uniform(rng, n, 0, 0.14))
    lace = soft(np.abs(np.sin((u + 0.6 * v) * uniform(rng, n, 8, 14))) * 0.12 - 0.04) * soft(np.abs(u + 0.1) - 0.25)
    swoosh = limb(u, v, (uniform(rng, n, -0.4, 0), 0.45), (uniform(rng, n, 0.3, 0.7), 0.1), 0.06, 0.03)
    upper = upper * (1 - 0.45 * lace * chance(rng, n, 0.7)) * (1 - 0.5 * swoosh * chance(rng, n, 0.5))
    return np.maximum(upper, sole * uniform(rng, n, 0.5, 1))


def _ankle_boot(rng: np.random.Generator, u: Grid, v: Grid) -> Grid:
    n = len(u)
    upper, sole = _shoe(rng, u, v, shaft=uniform(rng, n, 0.2, 0.85), heel=uniform(rng, n, 0.0, 0.34))
    zip_ = soft(np.abs(u - uniform(rng, n, 0.25, 0.55)) - 0.025) * chance(rng, n, 0.5)
    return np.maximum(upper * (1 - 0.5 * zip_), sole * uniform(rng, n, 0.6, 1))


def _sandal(rng: np.random.Generator, u: Grid, v: Grid) -> Grid:
    n = len(u)
    shaft = uniform(rng, n, -0.1, 0.45)
    upper, sole = _shoe(rng, u, v, shaft=shaft, heel=uniform(rng, n, 0, 0.4))
    wave = np.sin((u + uniform(rng, n, -1.0, 1.0) * v) * uniform(rng, n, 6, 13) + uniform(rng, n, 0, 6.28))
    straps = upper * soft((uniform(rng, n, -0.4, 0.6) - wave) * 0.15)
    height = uniform(rng, n, 0.0, 0.2)
    ankle = limb(u, v, (0.0, height), (0.7, height - shaft), 0.05, 0.05) * chance(rng, n, 0.6)
    return np.maximum(np.maximum(straps * uniform(rng, n, 0.6, 1), ankle), sole)
