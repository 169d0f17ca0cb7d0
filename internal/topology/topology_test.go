package topology_test

import (
	"strings"
	"testing"

	"github.com/puppetsrv/puppetsrv/internal/topology"
)

// valid is a topology that nothing is wrong with.
func valid() *topology.Topology {
	return &topology.Topology{
		Datacenters: []topology.Datacenter{{Name: "dc1", Domain: "dc1.example.net."}, {Name: "dc2", Domain: "dc2.example.net."}, {Name: "dc3", Domain: "dc3.example.net."}},
		Masters: []topology.Master{
			{Host: "m1.example.net.", Datacenter: "dc1", Port: 8140, Weight: 10, CA: true, Service: "m1.dc1.example.net."},
			{Host: "m2.example.net.", Datacenter: "dc2", Port: 8140, Weight: 10, Service: "m2.dc2.example.net."},
		},
		Local: 10, Remote: 20,
		Distances:    map[topology.Pair]int{topology.PairOf("dc3", "dc1"): 4},
		CamasterName: "puppet-camaster.example.net.", Camaster: "m1.example.net.",
		PuppetDBPort: 8081,
	}
}

func TestPriorityFollowsDistance(t *testing.T) {
	top := valid()
	m1 := top.Master("m1.example.net.")
	for dc, want := range map[string]uint16{"dc1": 10, "dc2": 20, "dc3": 50} {
		if got := top.Priority(dc, m1); got != want {
			t.Errorf("m1 for agents of %s: priority %d, want %d", dc, got, want)
		}
	}
}

func TestTheFarthestUpTierIsAheadOfTheFirstDownTier(t *testing.T) {
	for _, p := range [][2]uint16{{10, 20}, {0, 1}, {0, 99}, {10, 109}, {1000, 1007}} {
		top := valid()
		top.Local, top.Remote = p[0], p[1]
		top.Distances[topology.PairOf("dc1", "dc3")] = top.MaxDistance()
		if err := top.Validate(); err != nil {
			t.Errorf("priority %v at the largest distance %d: %v", p, top.MaxDistance(), err)
		}
		far, down := top.Priority("dc3", top.Master("m1.example.net.")), top.Local+topology.DownPenalty
		if far >= down {
			t.Errorf("priority %v: the farthest tier is %d, not ahead of the first down tier %d", p, far, down)
		}
		top.Distances[topology.PairOf("dc1", "dc3")]++
		if top.Validate() == nil {
			t.Errorf("priority %v: distance %d is accepted, though its tier would not be ahead of %d", p, top.MaxDistance()+1, down)
		}
	}
}

func TestValidateSaysWhatWouldBeRight(t *testing.T) {
	tests := map[string]struct {
		spoil func(*topology.Topology)
		want  string
	}{
		"no datacenter":       {func(t *topology.Topology) { t.Datacenters = nil }, "add `datacenter NAME`"},
		"no master":           {func(t *topology.Topology) { t.Masters = nil }, "add `master HOST DATACENTER`"},
		"datacenter twice":    {func(t *topology.Topology) { t.Datacenters[1].Name = "dc1" }, "given twice"},
		"domain twice":        {func(t *topology.Topology) { t.Datacenters[1].Domain = "dc1.example.net." }, "the same domain"},
		"master twice":        {func(t *topology.Topology) { t.Masters[1].Host = "m1.example.net." }, "given twice"},
		"unknown datacenter":  {func(t *topology.Topology) { t.Masters[1].Datacenter = "dc9" }, "the datacenters are dc1, dc2, dc3"},
		"port 0":              {func(t *topology.Topology) { t.Masters[0].Port = 0 }, "8140"},
		"weight 0":            {func(t *topology.Topology) { t.Masters[0].Weight = 0 }, "use 1 to 65535"},
		"local over remote":   {func(t *topology.Topology) { t.Local = 20 }, "must be lower"},
		"remote too far":      {func(t *topology.Topology) { t.Remote = 110 }, "less than 100 above"},
		"remote too high":     {func(t *topology.Topology) { t.Local, t.Remote = 65400, 65410 }, "at most"},
		"distance to itself":  {func(t *topology.Topology) { t.Distances[topology.PairOf("dc1", "dc1")] = 1 }, "no distance to itself"},
		"distance 0":          {func(t *topology.Topology) { t.Distances[topology.PairOf("dc1", "dc2")] = 0 }, "from 1 to 9"},
		"distance of unknown": {func(t *topology.Topology) { t.Distances[topology.PairOf("dc1", "dcx")] = 1 }, "unknown datacenter"},
		"no camaster":         {func(t *topology.Topology) { t.Camaster = "" }, "add `camaster NAME HOST`"},
		"camaster no master":  {func(t *topology.Topology) { t.Camaster = "x.example.net." }, "m1.example.net."},
		"camaster no CA":      {func(t *topology.Topology) { t.Camaster = "m2.example.net." }, "add `ca`"},
		"CNAME is a host":     {func(t *topology.Topology) { t.CamasterName = "m1.example.net." }, "cannot be a master's own"},
		"too many masters":    {func(t *topology.Topology) { t.Masters = make([]topology.Master, topology.MaxMasters+1) }, "at most 10000"},
		"too many entries": {func(t *topology.Topology) {
			t.Masters, t.Datacenters = make([]topology.Master, 10000), make([]topology.Datacenter, 51)
		}, "at most 500000"},
		"service is a host": {func(t *topology.Topology) {
			t.Targets, t.Masters[0].Service = topology.TargetsService, "m2.example.net."
		}, "give another with `service NAME`"},
		"service twice": {func(t *topology.Topology) {
			t.Targets, t.Masters[0].Service = topology.TargetsService, t.Masters[1].Service
		}, "the same service name"},
	}
	if err := valid().Validate(); err != nil {
		t.Fatalf("the valid topology is refused: %v", err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			top := valid()
			tt.spoil(top)
			err := top.Validate()
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
		})
	}
}
