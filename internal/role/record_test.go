package role_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/role"
	"github.com/puppetsrv/puppetsrv/internal/store"
)

// written is a record as it is on the disk of a camaster.
func written(t *testing.T) (data []byte) {
	in(t, func(t *testing.T, m *machine) {
		p := m.camaster()
		p.stop()
		data = m.files[role.RecordFile]
	})
	return data
}

// seal makes a file of a record.
func seal(record []byte) []byte {
	sum := sha256.Sum256(record)
	data, err := json.Marshal(map[string]any{"format": 1, "sha256": hex.EncodeToString(sum[:]), "record": json.RawMessage(record)})
	if err != nil {
		panic(err)
	}
	return data
}

// A record is read whole or not at all: whichever byte is changed or cut.
func TestADamagedRecordIsRefused(t *testing.T) {
	data := written(t)
	read := func(data []byte) error {
		_, err := role.ReadRecord(readOnly{role.RecordFile: data})
		return err
	}
	if err := read(data); err != nil {
		t.Fatal(err)
	}
	for i := range data {
		if read(data[:i]) == nil {
			t.Fatalf("cut after %d of %d bytes, and it is taken", i, len(data))
		}
		for _, flip := range []byte{1, 0x20, 0x80} {
			bad := append([]byte(nil), data...)
			bad[i] ^= flip
			if read(bad) == nil && !strings.EqualFold(string(bad), string(data)) {
				t.Fatalf("byte %d changed from %q to %q, and it is taken", i, data[i], bad[i])
			}
		}
	}
	for _, bad := range []string{
		``, `null`, `{"format":2}`,
		string(seal([]byte(`{"data":"mine"}`))),
		string(seal([]byte(`{"opened":"0.2.ns1","newest":{"version":"0.1.ns1","parent":"0","value":{}}}`))),
		string(seal([]byte(`{"chain":"0.2.ns1","newest":{"version":"0.1.ns1","parent":"0","value":{}}}`))),
		string(seal([]byte(`{"newest":{"version":"0.1.ns1","parent":"0.1.ns1","value":{}}}`))),
		string(seal([]byte(`{"newest":{"version":"x"}}`))),
	} {
		if err := read([]byte(bad)); err == nil || !strings.Contains(err.Error(), "the role stays closed") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// It may be formatted by hand; and what a newer release wrote is kept.
func TestUnknownFieldsSurvive(t *testing.T) {
	dir := store.Dir(t.TempDir())
	record := `{"newest":{"version":"0.1.ns1","parent":"0","value":{"host":"m2.example.net.","from":""}},"opened":"0","chain":"0","data":"copy","of_tomorrow":{"a":[1,2]},"rejoin":{"id":"x","state":"done","began":"2026-11-22T00:00:00Z"}}`
	var pretty map[string]any
	if err := json.Unmarshal(seal([]byte(record)), &pretty); err != nil {
		t.Fatal(err)
	}
	spaced := strings.ReplaceAll(string(seal([]byte(record))), `,"`, ",\n  \"")
	if err := os.WriteFile(filepath.Join(string(dir), role.RecordFile), []byte(spaced), 0o600); err != nil {
		t.Fatal(err)
	}
	in(t, func(t *testing.T, m *machine) {
		m.files[role.RecordFile] = []byte(spaced)
		p := m.run()
		p.ctl.Know(heard(1, to(m1)))
		p.state(evidence.Open, version(1))
		p.stop()
		if !strings.Contains(string(m.files[role.RecordFile]), `"of_tomorrow":{"a":[1,2]}`) {
			t.Errorf("written is %s", m.files[role.RecordFile])
		}
		if r := m.recorded(); r.Data != role.Own || r.Opened != version(1) || r.Rejoin == nil || r.Rejoin.ID != "x" {
			t.Errorf("%+v", r)
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"newest":{"version":"0.1.ns1","parent":"0","value":{"host":"m1.example.net.","from":""}},"opened":"0.1.ns1","opened_boot":"x","chain":"0.1.ns1","data":"own"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, record []byte) {
		if !json.Valid(record) {
			return
		}
		r, err := role.ReadRecord(readOnly{role.RecordFile: seal(record)})
		d := role.Decide(m1, "x", role.Knowledge{}, r)
		if d.State == evidence.Open && (err != nil || r.OpenedBoot != "x" || r.Newest.Value.Host != m1 || r.Newest.Value.Handover != "" || r.Opened != r.Newest.Version) {
			t.Errorf("%+v opens by %s", d, record)
		}
	})
}
