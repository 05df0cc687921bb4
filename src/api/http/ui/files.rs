//! The files of the dashboard: path below `/ui/`, and content. Written by `ui/build.sh`.

pub const FILES: [(&str, &[u8]); 4] = [
    ("assets/icon-EmPn01Xn.svg", include_bytes!("dist/assets/icon-EmPn01Xn.svg")),
    ("assets/index-BhwBEpAA.css", include_bytes!("dist/assets/index-BhwBEpAA.css")),
    ("assets/index-wV1s5d1x.js", include_bytes!("dist/assets/index-wV1s5d1x.js")),
    ("index.html", include_bytes!("dist/index.html")),
];
