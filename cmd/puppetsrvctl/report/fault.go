package report

import (
	"fmt"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// Fault is what the server said no to, and why; its rules are a list below.
func Fault(f *admin.Fault) string {
	var b strings.Builder
	detail := f.Detail
	if detail == "" {
		detail = f.Title
	}
	b.WriteString(clean(detail) + "\n")
	for _, rule := range f.Rules {
		b.WriteString("  - " + clean(rule) + "\n")
	}
	if c := f.Current; c != nil {
		fmt.Fprintf(&b, "  the camaster is %s, %s\n", host(c.Host), author(*c))
	}
	return b.String()
}

// Clean is s without what could act on a terminal.
func Clean(s string) string { return clean(s) }
