"""Figure 4: one SAM step and one GraphSAM step, computed on a real loss of two parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Arc

from molsam.report.figures import style
from molsam.report.figures.drawing import Drawing, Request

CURVATURE = np.array([[2.2, 0.9], [0.9, 0.7]])
START, RHO, LR, BETA, STEPS = np.array([-1.0, 2.5]), 0.55, 0.4, 0.5, 2

REACH = 1.0
"""Half of the drawing's width."""


def loss(theta: np.ndarray) -> np.ndarray:
    """Return L(theta) = theta H theta / 2 + 0.3 sin(2 theta_1); [..., 2] -> [...]."""
    return 0.5 * np.einsum("...i,ij,...j", theta, CURVATURE, theta) + 0.3 * np.sin(2 * theta[..., 0])


def gradient(theta: np.ndarray) -> np.ndarray:
    """Return the gradient of `loss`; [2] -> [2]."""
    return CURVATURE @ theta + np.array([0.6 * np.cos(2 * theta[0]), 0.0])


def steps() -> dict[str, Any]:
    """Return GraphSAM's trajectory, and at its last point both perturbations (radius rho), updates and their angle.

    Algorithm 1 with the plain step theta - eta omega: eps_0 is the gradient at theta_0, then
    eps <- beta eps + (1 - beta) omega / norm(omega). The angle is in degrees.
    """
    theta, eps, path = START.copy(), gradient(START), [START.copy()]
    for _ in range(STEPS):
        omega = gradient(theta + RHO * eps / np.linalg.norm(eps))
        theta = theta - LR * omega
        eps = BETA * eps + (1 - BETA) * omega / np.linalg.norm(omega)
        path.append(theta.copy())
    found: dict[str, Any] = {"path": np.array(path), "theta": theta}
    for name, direction in (("sam", gradient(theta)), ("graphsam", eps)):
        hat = RHO * direction / np.linalg.norm(direction)
        omega = gradient(theta + hat)
        found[name] = {"eps_hat": hat, "omega": omega, "next": theta - LR * omega}
    cosine = found["sam"]["eps_hat"] @ found["graphsam"]["eps_hat"] / RHO**2
    found["alpha"] = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return found


def draw(request: Request) -> Drawing:
    """Draw both steps from one point: up the loss by eps hat, and down by the gradient at the displaced weights."""
    found = steps()
    figure, axes = style.panels(1, height=2.5)
    ax = axes[0, 0]
    theta = found["theta"]
    _contours(ax, theta)
    ax.plot(*found["path"].T, color="0.45", linewidth=0.7, marker=".", markersize=3)
    ax.add_patch(_circle(theta))
    _step(ax, theta, found["sam"], style.colour("sam"), "S")
    _step(ax, theta, found["graphsam"], style.colour("graphsam"), "G")
    _angle(ax, theta, found)
    ax.plot(*theta, "o", color="black", markersize=3.5, zorder=6)
    ax.annotate(r"$\theta_t$", _xy(theta), xytext=(6, -7), textcoords="offset points")
    ax.set(xlabel=r"$\theta^{(1)}$", ylabel=r"$\theta^{(2)}$", aspect="equal")
    ax.set(xlim=theta[0] + REACH * np.array([-1, 1]), ylim=theta[1] + 0.8 * REACH * np.array([-1, 1]))
    ax.legend(loc="lower left", fontsize=6.5, frameon=True, framealpha=0.9, edgecolor="none")
    numbers = {k: v for k, v in found.items() if k == "alpha"}
    numbers |= {name: {k: v.tolist() for k, v in found[name].items()} for name in ("sam", "graphsam")}
    return Drawing(
        figure,
        numbers,
        f"A real loss of two parameters, rho {RHO}, beta {BETA}, learning rate {LR}, after {STEPS} GraphSAM steps: "
        f"the moving average is {found['alpha']:.1f} degrees off the true perturbation gradient.",
    )


def _contours(ax: Axes, centre: np.ndarray) -> None:
    x = np.linspace(centre[0] - REACH, centre[0] + REACH, 140)
    y = np.linspace(centre[1] - 0.8 * REACH, centre[1] + 0.8 * REACH, 140)
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    ax.contourf(x, y, loss(grid), levels=18, cmap="Greys", alpha=0.35)
    ax.contour(x, y, loss(grid), levels=18, colors="0.75", linewidths=0.4)


def _circle(centre: np.ndarray) -> Any:
    from matplotlib.patches import Circle

    return Circle(_xy(centre), RHO, fill=False, linestyle=":", linewidth=0.8, color="0.2")


def _step(ax: Axes, theta: np.ndarray, step: dict[str, np.ndarray], shade: str, sign: str) -> None:
    raised = theta + step["eps_hat"]
    text = {"S": "SAM: true gradient", "G": "GraphSAM: moving average"}[sign]
    _arrow(ax, theta, raised, shade, "-")
    _arrow(ax, raised, raised - LR * step["omega"], shade, "--")
    _arrow(ax, theta, step["next"], shade, "-")
    ax.plot([], [], color=shade, label=text)
    ax.plot(*raised, "o", color=shade, markersize=3, zorder=5)
    for place, what in ((raised, "adv"), (step["next"], "t+1")):
        outward = (place - theta) / np.linalg.norm(place - theta)
        ax.annotate(rf"$\theta^{sign}_{{{what}}}$", _xy(place), xytext=_xy(11 * outward), textcoords="offset points",
                    ha="center", va="center", zorder=6)  # fmt: skip


def _xy(point: np.ndarray) -> tuple[float, float]:
    return float(point[0]), float(point[1])


def _arrow(ax: Axes, start: np.ndarray, end: np.ndarray, shade: str, dash: str) -> None:
    ax.annotate("", _xy(end), _xy(start),
                arrowprops={"arrowstyle": "-|>", "color": shade, "linewidth": 1.3, "linestyle": dash,
                            "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8})  # fmt: skip


def _angle(ax: Axes, theta: np.ndarray, found: dict[str, Any]) -> None:
    ends = sorted(float(np.degrees(np.arctan2(*found[n]["eps_hat"][::-1]))) % 360 for n in ("sam", "graphsam"))
    if ends[1] - ends[0] > 180:
        ends = [ends[1], ends[0] + 360]
    ax.add_patch(Arc(_xy(theta), 0.6, 0.6, theta1=ends[0], theta2=ends[1], linewidth=0.9))
    middle = np.radians(sum(ends) / 2)
    place = theta + 0.37 * np.array([np.cos(middle), np.sin(middle)])
    ax.annotate(rf"$\alpha={found['alpha']:.0f}°$", _xy(place), fontsize=6.5, ha="center", va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.6})  # fmt: skip
