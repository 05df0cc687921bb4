//! The files of the dashboard: path below `/ui/`, and content. Written by `ui/build.sh`.

pub const FILES: [(&str, &[u8]); 4] = [
    ("assets/icon-EmPn01Xn.svg", include_bytes!("dist/assets/icon-EmPn01Xn.svg")),
    ("assets/index-BiaTGns0.css", include_bytes!("dist/assets/index-BiaTGns0.css")),
    ("assets/index-DG4GNdHl.js", include_bytes!("dist/assets/index-DG4GNdHl.js")),
    ("index.html", include_bytes!("dist/index.html")),
];
