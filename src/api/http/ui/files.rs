//! The files of the dashboard: path below `/ui/`, and content. Written by `ui/build.sh`.

pub const FILES: [(&str, &[u8]); 4] = [
    ("assets/icon-EmPn01Xn.svg", include_bytes!("dist/assets/icon-EmPn01Xn.svg")),
    ("assets/index-BtNcEp87.js", include_bytes!("dist/assets/index-BtNcEp87.js")),
    ("assets/index-CmDgTaks.css", include_bytes!("dist/assets/index-CmDgTaks.css")),
    ("index.html", include_bytes!("dist/index.html")),
];
