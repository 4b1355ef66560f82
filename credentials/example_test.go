package credentials_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"

	"google.golang.org/grpc"

	"github.com/seed-d18e112a/clientv3/credentials"
)

// A connection of one's own to a member, whose calls carry the token that Auth.Authenticate has given. A Client with a
// user name and a password does all this by itself.
func Example() {
	bundle := credentials.NewPerRPCCredentialBundle()
	conn, err := grpc.NewClient("etcd-1.example.com:2379",
		grpc.WithTransportCredentials(credentials.NewTransportCredential(&tls.Config{MinVersion: tls.VersionTLS12})),
		grpc.WithPerRPCCredentials(bundle.PerRPCCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	bundle.UpdateAuthToken("a token")
	sent, err := bundle.PerRPCCredentials().GetRequestMetadata(context.Background())
	fmt.Println(sent, err)
	// Output: map[token:a token] <nil>
}
