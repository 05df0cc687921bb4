//! The files of the dashboard: path below `/ui/`, and content. Written by `ui/build.sh`.

pub const FILES: [(&str, &[u8]); 4] = [
    ("assets/icon-EmPn01Xn.svg", include_bytes!("dist/assets/icon-EmPn01Xn.svg")),
    ("assets/index-BLvqumV2.css", include_bytes!("dist/assets/index-BLvqumV2.css")),
    ("assets/index-BbdMX9il.js", include_bytes!("dist/assets/index-BbdMX9il.js")),
    ("index.html", include_bytes!("dist/index.html")),
];
