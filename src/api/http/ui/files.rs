//! The files of the dashboard: path below `/ui/`, and content. Written by `ui/build.sh`.

pub const FILES: [(&str, &[u8]); 4] = [
    ("assets/icon-EmPn01Xn.svg", include_bytes!("dist/assets/icon-EmPn01Xn.svg")),
    ("assets/index-BiX_NV4c.js", include_bytes!("dist/assets/index-BiX_NV4c.js")),
    ("assets/index-BnEEHd3r.css", include_bytes!("dist/assets/index-BnEEHd3r.css")),
    ("index.html", include_bytes!("dist/index.html")),
];
