package admin

import "time"

// The types of the API, as JSON has them. Times are RFC 3339 in UTC. A newer
// release may add fields; clients ignore those they do not know.

// Status is what one node believes of everything: GET /v1/status.
type Status struct {
	Node       string    `json:"node"`                 // which node answers
	Release    string    `json:"release"`              // its version of puppetsrv
	Datacenter string    `json:"datacenter,omitempty"` // where it stands, as `location` says
	Time       time.Time `json:"time"`
	Started    time.Time `json:"started"`
	// Agree is true when every live node has the same zones and the same camaster.
	Agree    bool      `json:"agree"`
	Camaster Camaster  `json:"camaster"`
	Nodes    []Node    `json:"nodes"`   // sorted by name
	Masters  []Master  `json:"masters"` // as the Corefile has them, then those that joined
	Expiring []Expiry  `json:"expiring"`
	Problems []Problem `json:"problems"` // what a person should look at, the worst first
}

// Node is one DNS server of the cluster, as the answering node sees it.
type Node struct {
	Name       string    `json:"name"`
	Address    string    `json:"address,omitempty"` // of gossip, IP:port
	Datacenter string    `json:"datacenter,omitempty"`
	Release    string    `json:"release,omitempty"`
	State      string    `json:"state"` // alive, dead, left
	Since      time.Time `json:"since,omitzero"`
	Self       bool      `json:"self,omitempty"`
	// Isolated: it reaches no master at all, and its verdicts do not count.
	Isolated bool `json:"isolated,omitempty"`
	// DNS is where it answers, IP:port.
	DNS []string `json:"dns,omitempty"`
	// What it said last of its own state; Age is how long ago, in seconds.
	Camaster string      `json:"camaster,omitempty"` // the host it serves
	Version  string      `json:"version,omitempty"`  // of its camaster register
	Zones    []ZoneState `json:"zones,omitempty"`
	Age      float64     `json:"age"`
	// Agrees is false when it is alive and its zones or camaster have not been those
	// of the answering node for two seconds.
	Agrees bool `json:"agrees"`
}

// ZoneState is the state of one zone on one node.
type ZoneState struct {
	Origin string `json:"origin"`
	Serial uint32 `json:"serial"`
	Hash   string `json:"hash"` // of the content: equal hashes are equal answers
}

// Master is one Puppet server.
type Master struct {
	Host       string `json:"host"`
	Datacenter string `json:"datacenter"`
	Port       uint16 `json:"port"`
	Weight     uint16 `json:"weight"`
	CA         bool   `json:"ca"`       // may become the camaster
	Camaster   bool   `json:"camaster"` // is it
	// Joined: known by its member's announcement, not by the Corefile.
	Joined      bool         `json:"joined,omitempty"`
	Drain       *Drain       `json:"drain,omitempty"`
	Verdicts    []Verdict    `json:"verdicts"` // by datacenter, in the order of the Corefile
	Evidence    []Evidence   `json:"evidence"` // by observer, sorted by name
	Certificate *Certificate `json:"certificate,omitempty"`
	// Member is the member on its host, if one was ever heard.
	Member *MasterMember `json:"member,omitempty"`
}

// Verdict is what holds for the agents of one datacenter.
type Verdict struct {
	Datacenter string    `json:"datacenter"` // of the agents
	Down       bool      `json:"down"`
	Reason     string    `json:"reason,omitempty"` // refused, timeout, certificate, ... ; why it is down
	Detail     string    `json:"detail,omitempty"`
	Since      time.Time `json:"since,omitzero"`
	Priority   uint16    `json:"priority"`          // in the SRV records of that datacenter
	Listed     bool      `json:"listed"`            // false where it is left out
	Omitted    string    `json:"omitted,omitempty"` // why it is left out
}

// Evidence is what one observer says of a master.
type Evidence struct {
	Observer   string    `json:"observer"`
	Datacenter string    `json:"datacenter,omitempty"` // the observer's
	Down       bool      `json:"down"`
	Reason     string    `json:"reason,omitempty"`
	Detail     string    `json:"detail,omitempty"`
	Since      time.Time `json:"since,omitzero"`
	Age        float64   `json:"age"` // seconds since it was seen
	// Ignored says why it does not count: stale, isolated, dead, unobserved. Empty
	// where it does, for its own datacenter at least.
	Ignored string `json:"ignored,omitempty"`
}

// Certificate is what a master presented.
type Certificate struct {
	Names    []string  `json:"names"`
	NotAfter time.Time `json:"not_after"`
	Trusted  bool      `json:"trusted"`
}

// Drain is an operator's wish that a master gets no new work.
type Drain struct {
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until undrained
}

// Camaster is the register that says who is camaster: GET /v1/camaster.
type Camaster struct {
	Name string `json:"name"` // the CNAME
	Host string `json:"host"` // where it points
	// Version is "epoch.counter.node", or "0" where nothing was ever written and
	// Host is the one of the Corefile.
	Version string    `json:"version"`
	Since   time.Time `json:"since,omitzero"`
	Actor   string    `json:"actor,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Forced  bool      `json:"forced,omitempty"`
	Kind    Kind      `json:"kind,omitempty"`
	// Handover is who is to be the next one: Host's role is closed meanwhile.
	Handover string `json:"handover,omitempty"`
	// Conflicts are the writes that this one won against without knowing them.
	Conflicts []Write `json:"conflicts,omitempty"`
}

// Write is one entry of the audit history: GET /v1/history.
type Write struct {
	Key     string    `json:"key"`  // camaster, or drain/HOST
	From    string    `json:"from"` // the value it replaced, as its writer knew it; "" if it knew none
	To      string    `json:"to"`   // a host for the camaster, drained or undrained for a drain
	Version string    `json:"version"`
	Parent  string    `json:"parent"` // the version it replaced, as its writer knew it
	Time    time.Time `json:"time"`   // by its node's clock
	Until   time.Time `json:"until,omitzero"`
	Node    string    `json:"node"`  // where it was written
	Actor   string    `json:"actor"` // who: a certname, or local:USER
	Reason  string    `json:"reason"`
	Forced  bool      `json:"forced,omitempty"`
	Kind    Kind      `json:"kind,omitempty"` // of a camaster
	// Handover is to whom a camaster hands over.
	Handover string `json:"handover,omitempty"`
	// Accepted is the loss of data that its actor accepted, for people.
	Accepted string `json:"accepted,omitempty"`
	Current  bool   `json:"current,omitempty"` // it is the newest of its key
	// Conflict holds the versions of older writes of this key that this one's
	// writer did not know.
	Conflict []string `json:"conflict,omitempty"`
}

// History is a list of writes, the newest first.
type History struct {
	Writes []Write `json:"writes"`
}

// Wait says when a write returns, at the latest after a few seconds.
type Wait string

// What can be waited for. A write is on this node's disk in any case.
const (
	WaitAll      Wait = "all"      // every live node has it on disk
	WaitMajority Wait = "majority" // more than half of all known nodes have
	WaitNone     Wait = "none"
)

// SetCamaster is the body of PUT /v1/camaster.
type SetCamaster struct {
	Host   string `json:"host"`
	Reason string `json:"reason"` // 1 to 500 bytes
	// Expect is the version that is to be replaced, as Camaster.Version has it; the
	// write is refused if it is another (compare and set).
	Expect string `json:"expect"`
	// Force passes over the rules that would refuse, and makes this write win over
	// whatever a side that cannot be seen has written meanwhile.
	Force bool `json:"force,omitempty"`
	Wait  Wait `json:"wait,omitempty"` // default all
	// Kind is what the write is part of. With handover Host is the camaster that there
	// is; with switchover Host is whom it hands over to.
	Kind Kind `json:"kind,omitempty"`
	// Handover is who is to be the next camaster, with that kind only.
	Handover string `json:"handover,omitempty"`
	// AcceptDataLoss passes over the rules by which data may be lost. Force does not.
	AcceptDataLoss bool `json:"accept_data_loss,omitempty"`
}

// SetDrain is the body of PUT /v1/drains/HOST.
type SetDrain struct {
	Reason string `json:"reason"`        // 1 to 500 bytes
	For    string `json:"for,omitempty"` // a duration as in 30m, 1s to 8760h; empty: until undrained
	Wait   Wait   `json:"wait,omitempty"`
}

// Result says what became of a write.
type Result struct {
	Write Write `json:"write"`
	Acked int   `json:"acked"` // nodes that have it on disk, this one among them
	Of    int   `json:"of"`    // nodes known, dead ones among them
	Nodes []Ack `json:"nodes"` // sorted by name
	// Met is false when what was to be waited for did not come in time. The write
	// stands all the same, and reaches the others when they can be reached.
	Met bool `json:"met"`
}

// Ack is one node's answer to a write.
type Ack struct {
	Node         string   `json:"node"`
	Acked        bool     `json:"acked"`
	Milliseconds float64  `json:"milliseconds,omitempty"`
	Error        string   `json:"error,omitempty"` // why not: dead, no answer, its disk
	DNS          []string `json:"dns,omitempty"`   // where it answers
}

// Zone is one datacenter's domain as this node answers: GET /v1/zones/DATACENTER.
type Zone struct {
	Datacenter string  `json:"datacenter"`
	Domain     string  `json:"domain"`
	Origin     string  `json:"origin"` // the zone it is in
	Serial     uint32  `json:"serial"`
	RRsets     []RRset `json:"rrsets"`
}

// RRset is the records of one name and type.
type RRset struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	TTL     uint32   `json:"ttl"`
	Records []string `json:"records"` // the data in zone file format
}

// Zones is the answer to GET /v1/zones.
type Zones struct {
	Zones []Zone `json:"zones"`
}

// Masters is the answer to GET /v1/masters.
type Masters struct {
	Masters []Master `json:"masters"`
}

// Cluster is the membership: GET /v1/cluster.
type Cluster struct {
	Node    string            `json:"node"`
	Members []Member          `json:"members"` // sorted by name
	Refused map[string]uint64 `json:"refused"` // members refused since the start, by reason
	// Encrypted is whether gossip is.
	Encrypted bool `json:"encrypted"`
}

// Member is one member of the gossip pool, a node or a master.
type Member struct {
	Name       string    `json:"name"`
	Role       string    `json:"role"` // node, master; member if it has not shown what it is
	Address    string    `json:"address"`
	Datacenter string    `json:"datacenter,omitempty"`
	State      string    `json:"state"` // alive, dead, left
	Since      time.Time `json:"since,omitzero"`
	Self       bool      `json:"self,omitempty"`
}

// Keys is the gossip key ring on every node: GET /v1/keys. Keys themselves are
// never told.
type Keys struct {
	Nodes []NodeKeys `json:"nodes"` // sorted by name, the answering one among them
}

// NodeKeys is one node's key ring.
type NodeKeys struct {
	Node  string `json:"node"`
	Keys  []Key  `json:"keys"`
	Error string `json:"error,omitempty"` // why its ring is not known
}

// Key is one gossip key.
type Key struct {
	ID      string `json:"id"`      // the first 8 hex digits of its SHA-256
	Primary bool   `json:"primary"` // it encrypts
}

// KeyResult says what became of a change to the key rings: POST /v1/keys (make
// one and add it everywhere), POST /v1/keys/ID/use, DELETE /v1/keys/ID.
type KeyResult struct {
	ID    string `json:"id"`
	Acked int    `json:"acked"`
	Of    int    `json:"of"`
	Nodes []Ack  `json:"nodes"`
}

// Expiry is something that ends soon.
type Expiry struct {
	Kind    string    `json:"kind"`    // certificate, crl, drain
	Subject string    `json:"subject"` // whose
	Time    time.Time `json:"time"`
}

// Problem is something that a person should look at.
type Problem struct {
	Severity string `json:"severity"` // error, warning
	Subject  string `json:"subject"`  // a node, a master, camaster, disk, ...
	Text     string `json:"text"`     // one sentence, with what to do where that is known
}

// Event is one line of GET /v1/events, the data of a server-sent event; the
// event's id is its number, its name is Kind.
type Event struct {
	ID   uint64    `json:"id"`
	Kind string    `json:"kind"` // camaster, drain, verdict, member, problem
	Time time.Time `json:"time"`
	Node string    `json:"node"` // that says so
	// Subject is a host, a member or a key.
	Subject string `json:"subject"`
	Text    string `json:"text"`            // for people
	Write   *Write `json:"write,omitempty"` // of a camaster or drain
}
