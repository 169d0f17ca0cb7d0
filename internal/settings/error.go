package settings

import (
	"fmt"
	"strings"
)

// Error is one mistake in the file.
type Error struct {
	File string
	Line int    // from 1; 0: of the file as a whole
	Key  string // as roles.ca.mode; "" where it is no key's
	Text string // what is wrong, and what would be right
}

func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Text)
	return b.String()
}

// maxErrors bounds how many mistakes are told at once.
const maxErrors = 20

// Errors are all mistakes that were found, by line; at most maxErrors and one that says
// how many more.
type Errors []Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives each of them to errors.As.
func (e Errors) Unwrap() []error {
	each := make([]error, len(e))
	for i, one := range e {
		each[i] = one
	}
	return each
}
