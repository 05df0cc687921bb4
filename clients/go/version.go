package lineshaft

// Version of this package.
const Version = "0.1.0"
