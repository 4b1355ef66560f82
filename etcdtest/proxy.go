package etcdtest

// Proxy is
type Proxy struct{}

func (*Proxy) Close() error { return nil }
