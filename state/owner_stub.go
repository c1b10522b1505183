package state

func (t *tx) owner() int64 { return 0 }
