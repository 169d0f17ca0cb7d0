package register

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Version orders the values of a register: by epoch, then counter, then node. It
// has nothing to do with time. The zero value is older than all others: never
// written.
type Version struct {
	// Epoch grows only when a write is forced: it then wins over everything that
	// was written without knowing it, however often.
	Epoch uint32
	// Counter is one more than that of the value that was replaced (Lamport).
	Counter uint64
	// Node wrote it. It makes an order of what was written at once.
	Node string
}

// IsZero reports whether v is the version of what was never written.
func (v Version) IsZero() bool { return v == Version{} }

// Compare is negative if v is older than o, positive if it is newer.
func (v Version) Compare(o Version) int {
	return cmp.Or(cmp.Compare(v.Epoch, o.Epoch), cmp.Compare(v.Counter, o.Counter), strings.Compare(v.Node, o.Node))
}

// Next is the version of a write by node that replaces v.
func (v Version) Next(node string, forced bool) (Version, error) {
	n := Version{v.Epoch, v.Counter + 1, node}
	if forced {
		n.Epoch++
	}
	if v.Counter >= math.MaxUint64-1 || v.Epoch == math.MaxUint32 && forced {
		return Version{}, fmt.Errorf("version %s is the last one there is", v)
	}
	return n, nil
}

// String is "epoch.counter.node", and "0" for what was never written.
func (v Version) String() string {
	if v.IsZero() {
		return "0"
	}
	return fmt.Sprintf("%d.%d.%s", v.Epoch, v.Counter, v.Node)
}

// ParseVersion reads what String writes, and nothing else.
func ParseVersion(s string) (Version, error) {
	if s == "0" {
		return Version{}, nil
	}
	fail := func() (Version, error) {
		return Version{}, fmt.Errorf("%q is no version: it is written EPOCH.COUNTER.NODE, as in 0.3.ns1.example.net, or 0 for what was never written", s)
	}
	epoch, rest, ok1 := strings.Cut(s, ".")
	counter, node, ok2 := strings.Cut(rest, ".")
	if !ok1 || !ok2 {
		return fail()
	}
	e, err1 := strconv.ParseUint(epoch, 10, 32)
	c, err2 := strconv.ParseUint(counter, 10, 64)
	v := Version{uint32(e), c, node}
	if err1 != nil || err2 != nil || c == 0 || !validName(node) || v.String() != s {
		return fail()
	}
	return v, nil
}

// MarshalText is String.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText is ParseVersion.
func (v *Version) UnmarshalText(text []byte) (err error) {
	*v, err = ParseVersion(string(text))
	return err
}
