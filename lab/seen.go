//go:build linux

package main

import (
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/lab/stack"
)

// camasterOf is the camaster as a node has it.
func camasterOf(t *T, node string) admin.Camaster {
	st, err := t.Status(t.Context(), node)
	t.Must(err)
	st.Camaster.Host = strings.TrimSuffix(st.Camaster.Host, ".")
	return st.Camaster
}

// sayings are those of some phrases that a command has printed, for the table.
func sayings(r stack.Result, phrases ...string) string {
	var said []string
	for _, p := range phrases {
		if strings.Contains(r.Out+r.Err, p) {
			said = append(said, p)
		}
	}
	return strings.Join(said, ", ")
}
