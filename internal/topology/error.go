package topology

import "fmt"

// Error is a mistake in one part of the configuration, for which its reader can
// find the line.
type Error struct {
	Part string // "master", "datacenter", "camaster" or "zonefile"
	Name string // the master's host, the datacenter's name, the zone
	msg  string
}

// Error implements error.
func (e *Error) Error() string { return e.msg }

// Errorf makes an Error.
func Errorf(part, name, format string, args ...any) error {
	return &Error{Part: part, Name: name, msg: fmt.Sprintf(format, args...)}
}
