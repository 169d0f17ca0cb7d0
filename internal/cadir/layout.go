package cadir

import "path"

// The names of a cadir's files, as puppetserver has them.
const (
	certFile       = "ca_crt.pem"
	keyFile        = "ca_key.pem"
	pubFile        = "ca_pub.pem"
	crlFile        = "ca_crl.pem"
	infraCRLFile   = "infra_crl.pem"
	infraInventory = "infra_inventory.txt"
	infraSerials   = "infra_serials"
	inventoryFile  = "inventory.txt"
	serialFile     = "serial"
	rootKeyFile    = "root_key.pem"
	signedDir      = "signed"
	requestsDir    = "requests"
)

// Names of files that others ask a Set for.
const (
	CRL      = crlFile
	InfraCRL = infraCRLFile
)

// Bounds of what is read. A CA with a million revocations has a CRL of some 40 MB, and
// one with a million certificates an inventory of 100 MB.
const (
	maxSigned      = 500_000  // certificates in signed/
	maxCertificate = 64 << 10 // bytes, each
	maxRequests    = 100_000  // files looked at in requests/
)

// MaxSerial is the greatest serial that puppetserver's counter can hold: it parses the
// file as a signed 32-bit number (certificate_authority.clj, Integer/parseInt). A
// greater serial in a certificate is of another CA software, and no counter's.
const MaxSerial = 1<<31 - 1

// top is a file that lies in the cadir itself.
type top struct {
	name     string
	required bool // puppetserver does not start without, or makes a new CA
	max      int64
	ca       bool // of the CA itself: it changes with a renewal only, and only whole
}

// tops are in the order in which a set that grew is written: a serial is taken before
// it is used, an inventory knows a certificate before there is one, and a revocation
// does not wait for certificates.
var tops = [...]top{
	{serialFile, true, 64, false},
	{inventoryFile, true, 256 << 20, false},
	{crlFile, true, 64 << 20, false},
	{infraCRLFile, false, 64 << 20, false},
	{certFile, true, 1 << 20, true},
	{keyFile, true, 64 << 10, true},
	{pubFile, false, 64 << 10, true},
	{rootKeyFile, false, 64 << 10, true},
	{infraInventory, false, 1 << 20, false},
	{infraSerials, false, 1 << 20, false},
}

// reading is the order in which the same files are read: a set read in the opposite
// order of puppetserver's writing (serial, inventory, signed/) is one that it could have
// left, though it was writing at the time. signed/ is read between the two.
var (
	readFirst = [...]string{certFile, keyFile, pubFile, rootKeyFile}
	readLast  = [...]string{inventoryFile, serialFile, crlFile, infraCRLFile, infraInventory, infraSerials}
)

// topNamed returns the row of a name.
func topNamed(name string) (top, bool) {
	for _, t := range tops {
		if t.name == name {
			return t, true
		}
	}
	return top{}, false
}

// MaxSize is how large a set's file may be, in bytes; false if a set has no such path.
func MaxSize(p string) (int64, bool) {
	if t, ok := topNamed(p); ok {
		return t.max, true
	}
	dir, name := path.Split(p)
	return maxCertificate, dir == signedDir+"/" && isSigned(name)
}

// isSigned reports whether a name in signed/ is a certificate's: what puppetserver and
// its tools take for one. Its temporary files end otherwise.
func isSigned(name string) bool {
	const suffix = ".pem"
	if len(name) <= len(suffix) || len(name) > 255 || name[0] == '.' || name[len(name)-len(suffix):] != suffix {
		return false
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c == '/' || c >= 0x7f {
			return false
		}
	}
	return true
}
