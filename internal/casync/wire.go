package casync

import (
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
)

// Paths of a Server.
const (
	changesPath = "/v1/ca/changes"
	filesPath   = "/v1/ca/files"
	crlPath     = "/v1/crl"
)

// Bounds of requests and answers.
const (
	maxWait    = time.Minute // that a request may ask to be held
	maxAsked   = 1000        // files in one request
	maxRequest = 1 << 20     // bytes of a request
	maxChanges = 500_100     // files in one answer
	maxLine    = 16 << 10    // bytes of a line of an answer
	maxCRL     = 64 << 20    // bytes
)

// head is the first line of an answer to a question for changes. Files lines follow.
type head struct {
	Session    string   `json:"session"`    // a server's, from its start to its end
	Generation uint64   `json:"generation"` // of the set, within a session
	Hash       string   `json:"hash"`       // of the whole set
	Full       bool     `json:"full"`       // all files follow; else what changed since
	Files      int      `json:"files"`
	Removed    []string `json:"removed,omitempty"`
}

// asked is a request for files.
type asked struct {
	Files []askedFile `json:"files"`
}

// askedFile is one of them. With an Offset, only what comes behind it is sent, if what
// comes before has the hash Prefix: a file that grows at its end is not sent anew.
type askedFile struct {
	Path   string    `json:"path"`
	Sum    cadir.Sum `json:"sha256"`
	Offset int64     `json:"offset,omitempty"`
	Prefix cadir.Sum `json:"prefix,omitzero"`
}

// paxOffset is the PAX record of a tar entry that has a file's end only.
const paxOffset = "PUPPETSRV.offset"

// Headers of a CRL.
const (
	sumHeader  = "Puppetsrv-Sha256"
	timeHeader = "Puppetsrv-Modified" // RFC 3339, with fractions: Last-Modified has none
)
