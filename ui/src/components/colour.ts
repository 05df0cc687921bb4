/** The value of a CSS variable as a colour that a canvas understands, which does not know `light-dark()`. */
export function resolveColour(within: HTMLElement, name: string): string {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  within.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}
