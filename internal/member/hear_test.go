package member

import (
	"errors"
	"slices"
	"testing"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

func version(t *testing.T, s string) register.Version {
	t.Helper()
	v, err := register.ParseVersion(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A node has been heard when what it holds is known here, and it has proved who it is.
func TestRoll(t *testing.T) {
	old, stands := version(t, "0.1.ns1"), version(t, "0.2.ns2")
	ns1 := func(v register.Version) cluster.Standing {
		return cluster.Standing{Name: "a", Certname: "ns1.example.net", Version: v}
	}
	ns2 := func(v register.Version) cluster.Standing {
		return cluster.Standing{Name: "b", Certname: "ns2.example.net", Version: v}
	}
	both := []string{"ns1.example.net", "ns2.example.net"}
	for _, c := range []struct {
		name    string
		answers []cluster.Standing
		known   register.Version
		missing []string
	}{
		{"nobody answers", nil, stands, both},
		{"all hold the same", []cluster.Standing{ns1(stands), ns2(stands)}, stands, nil},
		{"one holds less", []cluster.Standing{ns1(old), ns2(stands)}, stands, nil},
		{"one holds more, which has not come yet", []cluster.Standing{ns1(old), ns2(stands)}, old, both[1:]},
		{"nothing was ever written", []cluster.Standing{ns1(register.Version{}), ns2(register.Version{})}, register.Version{}, nil},
		{"an answer that is an error", []cluster.Standing{ns1(stands), {Name: "b", Certname: "ns2.example.net", Err: errors.New("no answer in time")}}, stands, both[1:]},
		{"another certificate", []cluster.Standing{ns1(stands), {Name: "ns2.example.net", Certname: "m9.example.net", Version: stands}}, stands, both[1:]},
	} {
		r := newRoll(both)
		r.take(c.answers, c.known)
		if got := r.missing(); !slices.Equal(got, c.missing) {
			t.Errorf("%s: missing %q, want %q", c.name, got, c.missing)
		}
	}
	r := newRoll(both)
	if !r.take([]cluster.Standing{ns1(stands)}, stands) || r.take([]cluster.Standing{ns1(stands)}, stands) {
		t.Error("who was heard is news once")
	}
	r.setNodes([]string{"ns1.example.net", "ns3.example.net"})
	if got := r.missing(); !slices.Equal(got, []string{"ns3.example.net"}) {
		t.Errorf("after a reload: missing %q", got)
	}
}
