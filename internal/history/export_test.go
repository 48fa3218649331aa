package history

// Dropped counts the events that were not written.
func (l *Log) Dropped() int64 { return l.dropped.Load() }
