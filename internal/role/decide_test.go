package role_test

import (
	"strings"
	"testing"

	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// seen is a record of a version.
func seen(counter uint64, v camaster.Value) role.Record {
	return role.Record{Newest: role.Seen{Version: version(counter), Parent: version(max(counter, 1) - 1), Value: v}}
}

func opened(r role.Record, counter uint64, boot string) role.Record {
	r.Opened, r.OpenedBoot, r.Data = version(counter), boot, role.Own
	return r
}

func holds(r role.Record, d role.Data) role.Record { r.Data = d; return r }

func TestDecide(t *testing.T) {
	startOf := func(n uint64, k role.Knowledge) role.Knowledge { k.Value.Boot = n; return k }
	none := role.Record{}
	tests := []struct {
		name   string
		k      role.Knowledge
		r      role.Record
		state  string
		to     role.State
		former bool
		reason string
	}{
		// Who may open.
		{"named, and all nodes heard", heard(3, to(m1)), none, evidence.Open, role.Open, false, ""},
		{"named, and a node not heard", unheard(heard(3, to(m1))), none, evidence.Waiting, role.Closed, false, "has not heard ns2.example.net"},
		{"named, and the nodes are not known yet", role.Knowledge{Value: to(m1), Version: version(3)}, none, evidence.Waiting, role.Closed, false, "has not heard all nodes"},
		{"named for this very start", startOf(1, unheard(heard(3, to(m1)))), none, evidence.Open, role.Open, false, ""},
		{"named for an earlier start", startOf(2, unheard(heard(3, to(m1)))), none, evidence.Waiting, role.Closed, false, "ns2"},
		{"named for no start, by a host that has no number", role.Knowledge{Value: to(m1), Version: version(3)}, none, evidence.Waiting, role.Closed, false, ""},
		{"named, and a standby waits as one", unheard(heard(3, to(m1))), holds(none, role.Copy), evidence.Waiting, role.Standby, false, "ns2"},
		{"named under what is open in this boot", unheard(heard(3, to(m1))), opened(seen(3, to(m1)), 3, "boot"), evidence.Open, role.Open, false, "ns2"},
		{"the same, and nothing else is known yet", role.Knowledge{}, opened(seen(3, to(m1)), 3, "boot"), evidence.Open, role.Open, false, "all nodes"},
		{"the same, and all nodes heard", heard(3, to(m1)), opened(seen(3, to(m1)), 3, "boot"), evidence.Open, role.Open, false, ""},
		{"named under what was open before the host was booted", unheard(heard(3, to(m1))), opened(seen(3, to(m1)), 3, "before"), evidence.Waiting, role.Closed, false, "ns2"},
		{"named under newer than what is open in this boot", unheard(heard(4, to(m1))), opened(seen(3, to(m1)), 3, "boot"), evidence.Waiting, role.Closed, false, "ns2"},
		{"named again, by a former camaster that did not rejoin", heard(5, to(m1)), opened(seen(4, to(m2)), 3, "boot"), evidence.Open, role.Open, false, ""},

		// Nobody is camaster.
		{"never set", heard(0, to("")), none, evidence.Waiting, role.Closed, false, "`puppetsrvctl camaster set HOST` once"},
		{"never set, on a host that was managed", heard(0, to("")), holds(none, role.Own), evidence.Closed, role.Closed, false, "never set"},
		{"never set as far as known", unheard(heard(0, to(""))), none, evidence.Waiting, role.Closed, false, "ns2"},
		{"a standby, and never set", heard(0, to("")), holds(none, role.Copy), evidence.Closed, role.Standby, false, "never set"},
		{"a value that is not understood", heard(3, to("")), holds(none, role.Copy), evidence.Standby, role.Standby, false, ""},

		// Another one is.
		{"a standby", heard(3, to(m2)), holds(none, role.Copy), evidence.Standby, role.Standby, false, ""},
		{"a standby that has not heard all nodes", unheard(heard(3, to(m2))), holds(none, role.Copy), evidence.Standby, role.Standby, false, ""},
		{"a host without a record", heard(3, to(m2)), none, evidence.Closed, role.Closed, false, "has yet to see"},
		{"a former camaster", heard(4, to(m2)), opened(seen(3, to(m1)), 3, "boot"), evidence.Closed, role.Closed, true, "it was open under 0.3.ns1.example.net, and m2.example.net is camaster under 0.4.ns1.example.net: `puppetsrvctl rejoin m1.example.net`"},
		{"a host that was found open", heard(4, to(m2)), holds(none, role.Own), evidence.Closed, role.Closed, true, "data of its own"},
		{"a former camaster that rejoins", heard(4, to(m2)), rejoining(opened(seen(3, to(m1)), 3, "boot"), "running"), evidence.Closed, role.Standby, true, "becoming a standby"},
		{"a former camaster that tried to", heard(4, to(m2)), rejoining(opened(seen(3, to(m1)), 3, "boot"), "manual"), evidence.Closed, role.Closed, true, "rejoin"},
		{"a camaster that was handed over", heard(5, to(m2)), holds(opened(seen(4, handover(m1, m2)), 3, "boot"), role.Copy), evidence.Standby, role.Standby, false, ""},

		// A handover.
		{"handing over", heard(4, handover(m1, m2)), opened(seen(3, to(m1)), 3, "boot"), evidence.Closed, role.Closed, false, "handed over to m2.example.net under 0.4.ns1.example.net"},
		{"handed over, and not yet taken", heard(4, handover(m1, m2)), holds(opened(seen(4, handover(m1, m2)), 3, "boot"), role.Copy), evidence.Closed, role.Closed, false, "handed over to m2"},
		{"to be handed the role", heard(4, handover(m2, m1)), holds(none, role.Copy), evidence.Standby, role.Standby, false, ""},
		{"to be handed the role as a former camaster", heard(4, handover(m2, m1)), opened(seen(3, to(m2)), 2, "boot"), evidence.Closed, role.Closed, true, "rejoin"},
		{"a handover that was called off", heard(5, to(m1)), holds(opened(seen(4, handover(m1, m2)), 3, "boot"), role.Copy), evidence.Open, role.Open, false, ""},

		// What was known before.
		{"old knowledge of being camaster", heard(3, to(m1)), holds(seen(4, to(m2)), role.Copy), evidence.Standby, role.Standby, false, ""},
		{"old knowledge of being open in this boot", heard(3, to(m1)), opened(seen(4, to(m2)), 3, "boot"), evidence.Closed, role.Closed, true, "m2.example.net is camaster under 0.4"},
		{"an empty register", heard(0, to("")), opened(seen(4, to(m2)), 3, "boot"), evidence.Closed, role.Closed, true, "m2"},
		{"old knowledge of another one", heard(3, to(m2)), seen(4, to(m1)), evidence.Open, role.Open, false, ""},
		{"two values under one version", heard(3, to(m1)), seen(3, to(m2)), evidence.Closed, role.Closed, false, "a node went back to an old disk"},
		{"two values under one version, the other way round", heard(3, to(m2)), opened(seen(3, to(m1)), 3, "boot"), evidence.Closed, role.Closed, false, "an old disk"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := role.Decide(m1, "boot", tt.k, tt.r)
			if d.State != tt.state || d.To != tt.to || d.Former != tt.former || !strings.Contains(d.Reason, tt.reason) || (d.State == evidence.Open && !d.Hold || d.State == evidence.Standby) != (d.Reason == "") {
				t.Errorf("got %+v\nwant %s, to %s, former %v, because %q", d, tt.state, tt.to, tt.former, tt.reason)
			}
			if d.Hold != (d.State == evidence.Open && !tt.k.Heard && (tt.k.Boot == 0 || tt.k.Value.Boot != tt.k.Boot)) {
				t.Errorf("hold is %v", d.Hold)
			}
			if d.Version.Compare(tt.k.Version) < 0 || d.Version.Compare(tt.r.Newest.Version) < 0 {
				t.Errorf("decided under %s, and knows %s and %s", d.Version, tt.k.Version, tt.r.Newest.Version)
			}
		})
	}
}

func rejoining(r role.Record, state string) role.Record {
	r.Rejoin = &evidence.Rejoin{ID: "x", State: state}
	return r
}

// A host of which not even the boot is known does not go by what was open before.
func TestDecideWithoutABoot(t *testing.T) {
	r := opened(seen(3, to(m1)), 3, "")
	if d := role.Decide(m1, "", unheard(heard(3, to(m1))), r); d.State != evidence.Waiting {
		t.Errorf("got %+v", d)
	}
}
