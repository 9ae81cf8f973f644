package postgres

// NewIDAt is NewID at another time.
var NewIDAt = newID
