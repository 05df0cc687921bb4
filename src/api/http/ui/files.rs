//! The files of the dashboard: path below `/ui/`, and content. Written by `ui/build.sh`.

pub const FILES: [(&str, &[u8]); 4] = [
    ("assets/icon-EmPn01Xn.svg", include_bytes!("dist/assets/icon-EmPn01Xn.svg")),
    ("assets/index-D51B-ZiV.css", include_bytes!("dist/assets/index-D51B-ZiV.css")),
    ("assets/index-DWfD_Ofm.js", include_bytes!("dist/assets/index-DWfD_Ofm.js")),
    ("index.html", include_bytes!("dist/index.html")),
];
