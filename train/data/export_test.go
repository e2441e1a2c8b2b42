package data

// Pack is best fit decreasing.
var Pack = pack
