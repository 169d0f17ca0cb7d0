package cluster

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
)

// knownFile is the name of the file.
const knownFile = "cluster.json"

// maxKnown bounds what is remembered of each kind.
const maxKnown = 10000

// known is what is remembered of others over a restart, so that the answers after
// it have the same masters, and a write says which nodes do not have it. Nothing
// depends on it for good: what is lost is learned again.
type known struct {
	disk Disk
	log  *sparse

	mu     sync.Mutex
	data   knownJSON
	alive  map[string]bool // as of the last meet
	loaded bool            // false: the file could not be read, and is not written over
	saved  string
}

type knownJSON struct {
	Format  int                     `json:"format"`
	Boot    uint64                  `json:"boot"` // of the newest start
	Nodes   map[string]time.Time    `json:"nodes"`
	Masters map[string]Announcement `json:"masters"`
}

const knownFormat = 1

func openKnown(disk Disk, log *sparse, start time.Time) *known {
	k := &known{disk: disk, log: log, alive: make(map[string]bool), loaded: disk != nil}
	k.data = knownJSON{Format: knownFormat, Nodes: make(map[string]time.Time), Masters: make(map[string]Announcement)}
	if disk != nil {
		data, err := disk.Read(knownFile)
		var in knownJSON
		if err == nil {
			err = json.Unmarshal(data, &in)
		}
		if err == nil && in.Format != knownFormat {
			err = errors.New("it is of another release")
		}
		switch {
		case err == nil:
			k.data.Boot = in.Boot
			maps.Copy(k.data.Nodes, in.Nodes)
			maps.Copy(k.data.Masters, in.Masters)
		case !errors.Is(err, fs.ErrNotExist):
			k.loaded = false
			log.Errorf("Cluster: %s cannot be used and is left as it is, members are learned anew: %s", knownFile, err)
		}
	}
	// Ahead of what was before even if the file was lost, and not that of a start
	// that could not write it.
	k.data.Boot = max(k.data.Boot+1+rand.Uint64N(1<<20), uint64(start.UnixMicro()))
	k.write()
	return k
}

func (k *known) boot() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.data.Boot
}

func (k *known) setBoot(boot uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.data.Boot = max(k.data.Boot, boot)
}

// meet takes who is a member now and returns the living that were not before.
func (k *known) meet(members []gossip.Member) (newcomers []gossip.Member) {
	k.mu.Lock()
	defer k.mu.Unlock()
	alive := make(map[string]bool)
	for _, m := range members {
		if m.Status != gossip.Alive {
			continue
		}
		alive[m.Name] = true
		if !k.alive[m.Name] {
			newcomers = append(newcomers, m)
		}
	}
	k.alive = alive
	return newcomers
}

// absent are the nodes that were members before the last start and are not any
// more, by name.
func (k *known) absent(members []gossip.Member) []gossip.Member {
	k.mu.Lock()
	defer k.mu.Unlock()
	var absent []gossip.Member
	for name, since := range k.data.Nodes {
		if !slices.ContainsFunc(members, func(m gossip.Member) bool { return m.Name == name }) {
			absent = append(absent, gossip.Member{Name: name, Status: gossip.Dead, Since: since, Meta: encodeMeta(RoleNode)})
		}
	}
	slices.SortFunc(absent, func(a, b gossip.Member) int { return strings.Compare(a.Name, b.Name) })
	return absent
}

func (k *known) isNode(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.data.Nodes[name]
	return ok
}

// masters are those that announced themselves and have not left, by host.
func (k *known) masters() []Announcement {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.SortedFunc(maps.Values(k.data.Masters), func(a, b Announcement) int { return strings.Compare(a.Host, b.Host) })
}

// save remembers members and announcements, and forgets who has left.
// The announcements are the callee's.
func (k *known) save(members []gossip.Member, proven map[string]Role, announced map[string]Announcement) {
	k.mu.Lock()
	for _, m := range members {
		_, was := k.data.Nodes[m.Name]
		switch {
		case m.Status == gossip.Left:
			delete(k.data.Nodes, m.Name)
			delete(k.data.Masters, m.Name)
			delete(announced, m.Name)
		case proven[m.Name] == RoleNode && m.Status == gossip.Alive && !was && len(k.data.Nodes) < maxKnown:
			k.data.Nodes[m.Name] = m.Since.UTC().Truncate(time.Second)
		}
	}
	for name, a := range announced {
		if _, was := k.data.Masters[name]; was || len(k.data.Masters) < maxKnown {
			k.data.Masters[name] = a
		}
	}
	k.mu.Unlock()
	k.write()
}

// write puts on disk what has changed.
func (k *known) write() {
	k.mu.Lock()
	data, err := json.MarshalIndent(k.data, "", "  ")
	if !k.loaded || err != nil || string(data) == k.saved {
		k.mu.Unlock()
		return
	}
	k.mu.Unlock()
	if err := k.disk.Write(knownFile, data); err != nil {
		k.log.Warningf("known", "Cluster: members are not remembered over a restart: %s", err)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.saved = string(data)
}

// Masters returns the masters that announced themselves and have not left, by
// host; also those that were remembered from before the last start.
func (c *Cluster) Masters() []Announcement {
	return slices.DeleteFunc(c.known.masters(), func(a Announcement) bool { return !c.admitted(strings.TrimSuffix(a.Host, ".")) })
}

// announced are the announcements of others, by observer.
func (rs *reports) announced() map[string]Announcement {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	announced := make(map[string]Announcement)
	for name, h := range rs.held {
		if h.report.Announce != nil {
			announced[name] = *h.report.Announce
		}
	}
	return announced
}
