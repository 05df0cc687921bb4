// Icons as SVG, 24 × 24, drawn with the colour of the text.
import type { ComponentChildren } from "preact";

const icon = (children: ComponentChildren) => () => (
  <svg viewBox="0 0 24 24" width="18" height="18" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">
    {children}
  </svg>
);

export const OverviewIcon = icon(<path d="M3 13h4l3 7 4-16 3 9h4" />);
export const TasksIcon = icon(<path d="M8 6h13M8 12h13M8 18h13M3.5 6h.01M3.5 12h.01M3.5 18h.01" />);
export const SchedulesIcon = icon(<><circle cx="12" cy="12" r="8.5" /><path d="M12 7v5l3 2" /></>);
export const SubmitIcon = icon(<path d="M12 5v14M5 12h14" />);
export const WorkersIcon = icon(<><rect x="3" y="3" width="7" height="7" rx="1.5" /><rect x="14" y="3" width="7" height="7" rx="1.5" /><rect x="3" y="14" width="7" height="7" rx="1.5" /><rect x="14" y="14" width="7" height="7" rx="1.5" /></>);
export const PoolsIcon = icon(<><ellipse cx="12" cy="6" rx="8" ry="3" /><path d="M4 6v6c0 1.7 3.6 3 8 3s8-1.3 8-3V6M4 12v6c0 1.7 3.6 3 8 3s8-1.3 8-3v-6" /></>);
export const BenchmarkIcon = icon(<><path d="M12 14l4-5" /><path d="M4.5 18a9 9 0 1 1 15 0" /></>);
export const SearchIcon = icon(<><circle cx="11" cy="11" r="7" /><path d="M21 21l-4.3-4.3" /></>);
export const ThemeIcon = icon(<><circle cx="12" cy="12" r="8.5" /><path d="M12 3.5a8.5 8.5 0 0 1 0 17z" fill="currentColor" /></>);
export const LogOutIcon = icon(<path d="M15 4h4a1 1 0 0 1 1 1v14a1 1 0 0 1-1 1h-4M10 8l-4 4 4 4M6 12h10" />);
export const CopyIcon = icon(<><rect x="9" y="9" width="11" height="11" rx="2" /><path d="M5 15V5a1 1 0 0 1 1-1h10" /></>);
export const PauseIcon = icon(<path d="M8 5v14M16 5v14" />);
export const PlayIcon = icon(<path d="M7 5l12 7-12 7z" />);
export const CloseIcon = icon(<path d="M6 6l12 12M18 6L6 18" />);
