// Package camaster is the register that says who is camaster: its key and its value.
package camaster

import (
	"encoding/json"

	"github.com/puppetsrv/puppetsrv/internal/register"
)

// Key is the register's.
const Key = "camaster"

// Value is the register's. A newer release may add fields.
type Value struct {
	Host string `json:"host"` // with a final dot
	From string `json:"from"` // what the writer served before
	// Handover is who is to be the next one: Host's role is closed under this version,
	// so that the next one can get everything. Empty: Host's role is open.
	Handover string `json:"handover,omitempty"` // with a final dot
	// Boot is the number of Host's start that the writer knew of, 0 for none. A member
	// that has just started opens for a value that was written since, without hearing
	// all nodes first: it was decided for this very start.
	Boot uint64 `json:"boot,omitempty"`
}

// Of returns the value that a state holds now and its version; false if there is none.
func Of(s register.State) (Value, register.Version, bool) {
	e, ok := s.Get(Key)
	if !ok {
		return Value{}, register.Version{}, false
	}
	v, ok := Parse(e)
	return v, e.Version, ok
}

// Parse understands an entry's value; false if it says nobody.
func Parse(e register.Entry) (v Value, ok bool) {
	ok = json.Unmarshal(e.Value, &v) == nil && v.Host != ""
	return v, ok
}
