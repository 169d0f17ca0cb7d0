package cluster

// Receive gives c a message as if another member had sent it.
func Receive(c *Cluster, message []byte) {
	started := make(chan struct{})
	close(started)
	delegate{c, started}.Received(message)
}
