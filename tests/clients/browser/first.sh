node look.js first.html "$LINESHAFT_SERVER"
