package ingest

// A NameStyle says how a document's key becomes the name of its source.
type NameStyle uint8

// The styles of names.
const (
	Flat NameStyle = iota // the key with "__" for "/"
	Key                   // the key as it is
	Base                  // the part after the last "/"
)

// SourceName returns the name that the source of a document with this key gets: the
// same at every call, 1 to 200 bytes of valid UTF-8 without control characters,
// quotes, backslashes and "..". Where the key had to be altered or shortened the name
// keeps its extension and has 8 hex digits of the key's hash before it.
func SourceName(key string, style NameStyle) string { panic("later") }
