//! The files of the dashboard: path below `/ui/`, and content. Written by `ui/build.sh`.

pub const FILES: [(&str, &[u8]); 4] = [
    ("assets/icon-EmPn01Xn.svg", include_bytes!("dist/assets/icon-EmPn01Xn.svg")),
    ("assets/index-DSafy-h9.css", include_bytes!("dist/assets/index-DSafy-h9.css")),
    ("assets/index-K40a9Sbi.js", include_bytes!("dist/assets/index-K40a9Sbi.js")),
    ("index.html", include_bytes!("dist/index.html")),
];
