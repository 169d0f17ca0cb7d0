package role

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

// RecordFile is the record's name on a Disk.
const RecordFile = "role.json"

// recordFormat is the version of the encoding. A newer release that can be read by this
// one keeps the number.
const recordFormat = 1

// maxSteps is how many steps of a change are kept and shown.
const maxSteps = 64

// Data says what a host's services hold.
type Data string

const (
	// Unsure: there was no record, and the services have not been looked at.
	Unsure Data = ""
	// Copy: nothing but what came from a camaster. To follow it loses nothing.
	Copy Data = "copy"
	// Own: what was written here may be nowhere else.
	Own Data = "own"
)

// Seen is a version of the camaster with its value.
type Seen struct {
	Version register.Version `json:"version"`
	Parent  register.Version `json:"parent"`
	Value   camaster.Value   `json:"value"`
}

// Record is what a host has to remember of its role. It is on disk before a service is
// opened, and before closing is said to be clean. The zero value is that of a new host.
type Record struct {
	// Newest is the newest version that it ever saw. It never goes back.
	Newest Seen `json:"newest"`
	// Opened is the version under which it began to open last, in the boot of the host
	// that OpenedBoot names.
	Opened     register.Version `json:"opened"`
	OpenedBoot string           `json:"opened_boot,omitempty"`
	// Chain is the newest version that is known to follow Opened with nothing between
	// the two that named another host: nobody can have written elsewhere since.
	Chain register.Version `json:"chain"`
	Data  Data             `json:"data,omitempty"`
	// Rejoin is the last one asked for; one that is running goes on after a restart.
	Rejoin *evidence.Rejoin `json:"rejoin,omitempty"`
	// Steps are those of the last change.
	Steps []evidence.Step `json:"steps,omitempty"`

	// more has what a newer release wrote into it.
	more map[string]json.RawMessage
	// damaged is why it could not be read. Nothing is known then.
	damaged error
}

type recordJSON struct {
	Format int             `json:"format"`
	SHA256 string          `json:"sha256"` // of record, as it stands
	Record json.RawMessage `json:"record"`
}

// ReadRecord reads a host's record; a zero one where there is none. A damaged one is an
// error and a record under which Decide opens nothing.
func ReadRecord(disk Disk) (Record, error) {
	data, err := disk.Read(RecordFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, nil
	}
	var r Record
	if err == nil {
		r, err = decodeRecord(data)
	}
	if err != nil {
		err = fmt.Errorf("reading the record of the role %s: %w; the role stays closed: put an undamaged copy there, or remove it, and restart the member: without one, a host whose services are no running standbys counts as a former camaster", RecordFile, err)
		return Record{damaged: err}, err
	}
	return r, nil
}

func decodeRecord(data []byte) (Record, error) {
	var in recordJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return Record{}, err
	}
	if in.Format != recordFormat {
		return Record{}, fmt.Errorf("format %d: this release knows format %d", in.Format, recordFormat)
	}
	// The file may have been formatted anew by hand; the checksum is of the content.
	var compact bytes.Buffer
	if err := json.Compact(&compact, in.Record); err != nil {
		return Record{}, err
	}
	if sum := sha256.Sum256(compact.Bytes()); hex.EncodeToString(sum[:]) != in.SHA256 {
		return Record{}, errors.New("the checksum does not fit: the content is damaged")
	}
	var r Record
	if err := json.Unmarshal(in.Record, &r); err != nil {
		return Record{}, err
	}
	if err := json.Unmarshal(in.Record, &r.more); err != nil {
		return Record{}, err
	}
	switch {
	case r.Data != Unsure && r.Data != Copy && r.Data != Own:
		return Record{}, fmt.Errorf("data %.20q: it is copy or own", r.Data)
	case r.Opened.Compare(r.Newest.Version) > 0 || r.Chain.Compare(r.Newest.Version) > 0:
		return Record{}, fmt.Errorf("opened under %s, but the newest version seen is %s", r.Opened, r.Newest.Version)
	case !r.Newest.Version.IsZero() && r.Newest.Parent.Compare(r.Newest.Version) >= 0:
		return Record{}, fmt.Errorf("version %s does not come after %s", r.Newest.Version, r.Newest.Parent)
	}
	return r, nil
}

func (r *Record) encode() ([]byte, error) {
	known, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(r.more)
	// What this release knows and leaves out is not kept from an older record.
	for _, k := range []string{"opened_boot", "data", "rejoin", "steps"} {
		delete(all, k)
	}
	if err := json.Unmarshal(known, &all); err != nil {
		return nil, err
	}
	record, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(record)
	return json.Marshal(recordJSON{recordFormat, hex.EncodeToString(sum[:]), record})
}

func (r Record) clone() Record {
	r.Steps = slices.Clone(r.Steps)
	if r.Rejoin != nil {
		rejoin := *r.Rejoin
		r.Rejoin = &rejoin
	}
	return r
}

// see takes in a newer version, and reports whether k has one.
func (r *Record) see(host string, k Knowledge) bool {
	if k.Version.Compare(r.Newest.Version) <= 0 {
		return false
	}
	if k.Value.Host != host || r.Chain.IsZero() || k.Parent != r.Chain {
		r.Chain = register.Version{}
	} else {
		r.Chain = k.Version
	}
	r.Newest = Seen{k.Version, k.Parent, k.Value}
	return true
}

// open notes that the host begins to open under its newest version.
func (r *Record) open(boot string) {
	r.Opened, r.OpenedBoot, r.Chain, r.Data = r.Newest.Version, boot, r.Newest.Version, Own
}

// unclean says why a host whose services are closed under a handover may have something
// that the next camaster cannot get; "" if nothing speaks for it.
func (r *Record) unclean(boot string) string {
	switch {
	case r.Data == Copy:
		return ""
	case r.Opened.IsZero():
		return "its services were not opened by the member"
	case r.OpenedBoot != boot:
		return "the host was booted since it was open"
	case r.Chain != r.Newest.Version:
		return fmt.Sprintf("it was last open under %s, and another host may have been camaster since", r.Opened)
	}
	return ""
}
