// Recommends movies for a person, without the SDK: Encode, then Search, as any gRPC client does it.
//
//     npm ci
//     node recommend.js ada 5 Comedy Drama
//
// Addresses: MARQUEE_ENCODER and MARQUEE_RETRIEVER, host:port.

import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const DEADLINE_MS = 2_000;
// google/rpc/status.proto lies beside this file, Marquee's own in protos/.
const FOLDERS = ["../../protos", "."].map((folder) => fileURLToPath(new URL(folder, import.meta.url)));

function load() {
  const files = ["marquee/v1/user_encoder.proto", "marquee/v1/retriever.proto"];
  // Movie ids are int64: as strings they stay whole, as JavaScript's numbers they might not. Fields keep their names: by
  // default user_id would be userId, and a user_id that is given would be dropped without a word.
  const options = { includeDirs: FOLDERS, keepCase: true, longs: String, enums: String, defaults: true };
  const definition = loadSync(files, options);
  return grpc.loadPackageDefinition(definition).marquee.v1;
}

// A function that makes one call of a method and waits for the answer, DEADLINE_MS at the most.
function rpc(client, method) {
  const call = promisify(client[method]).bind(client);
  return (request) => call(request, new grpc.Metadata(), { deadline: Date.now() + DEADLINE_MS });
}

async function recommend(encoder, retriever, user, k, genres) {
  const person = await rpc(encoder, "Encode")({ user_id: user, allow_cold_start: true });
  return rpc(retriever, "Search")({
    // What Encode gave goes to Search as it is: bytes that only the services read, and the space that they live in.
    vector: person.vector,
    space: person.space,
    exclude_packed: person.seen,
    request_id: person.request_id,
    k,
    filter: { genres_any: genres },
    details: { paths: ["title", "year"] },
  });
}

async function main([user = "", k = "10", ...genres]) {
  const { UserEncoderService, RetrieverService } = load();
  const { MARQUEE_ENCODER = "127.0.0.1:50051", MARQUEE_RETRIEVER = "127.0.0.1:50052" } = process.env;
  const encoder = new UserEncoderService(MARQUEE_ENCODER, grpc.credentials.createInsecure());
  const retriever = new RetrieverService(MARQUEE_RETRIEVER, grpc.credentials.createInsecure());
  try {
    const found = await recommend(encoder, retriever, user, Number(k), genres);
    found.movies.forEach((movie, rank) => {
      const year = movie.year ? ` (${movie.year})` : "";
      console.log(`${rank + 1}. ${movie.title}${year}  ${found.scores[rank].toFixed(3)}`);
    });
  } catch (error) {
    console.error(`error: ${grpc.status[error.code] ?? error.name}: ${error.details ?? error.message}`);
    process.exitCode = 1;
  } finally {
    encoder.close();
    retriever.close();
  }
}

await main(process.argv.slice(2));
