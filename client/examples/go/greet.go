package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"example/kvdv1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	ctx := context.Background()
	conn, err := grpc.NewClient(os.Getenv("KVD_ENDPOINT"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	kv := kvdv1.NewKVClient(conn)
	if _, err = kv.Put(ctx, &kvdv1.PutRequest{Key: []byte("greeting"), Value: []byte("hello from Go")}); err != nil {
		log.Fatal(err)
	}
	got, err := kv.Get(ctx, &kvdv1.GetRequest{Key: []byte("greeting")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(got.Pair.Value))
}
