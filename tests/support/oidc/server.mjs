// A real authorization server for the tests, and an API beside it that takes its access tokens and answers as Katana documents.
//
//   node server.mjs FOLDER OPTIONS
//
// FOLDER is where scripts/setup has installed oidc-provider. OPTIONS is JSON: accessTtl, refreshTtl, codeTtl (in seconds), secret.
// It listens on 127.0.0.1 on a free port, prints that port, and ends when its standard input does.

import { createServer } from "node:http";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, text] = process.argv.slice(2);
const options = JSON.parse(text);
const entry = join(folder, "node_modules/oidc-provider/lib/index.js");
const { Provider } = await import(pathToFileURL(entry).href);

process.stdin.on("end", () => process.exit(0)).resume();

const counts = { refreshed: 0, exchanged: 0, revoked: 0, refused: 0, accepted: 0, rejected: 0 };
let handler = (request, response) => response.end();
const server = createServer((request, response) => handler(request, response));
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const origin = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(origin, {
    clients: [
        {
            client_id: "shop-sync",
            client_secret: options.secret,
            application_type: "native",
            grant_types: ["authorization_code", "refresh_token"],
            redirect_uris: ["http://127.0.0.1/callback"],
            token_endpoint_auth_method: "client_secret_post",
        },
    ],
    scopes: ["openid", "offline_access"],
    // As Katana: the scope alone asks for a refresh token, each is good once, and it does not end with the browser's session.
    issueRefreshToken: async () => true,
    rotateRefreshToken: true,
    expiresWithSession: async () => false,
    pkce: { required: () => false },
    features: { devInteractions: { enabled: true }, resourceIndicators: { enabled: false } },
    ttl: {
        AccessToken: options.accessTtl ?? 3600,
        RefreshToken: options.refreshTtl ?? 24 * 3600,
        AuthorizationCode: options.codeTtl ?? 60,
        Grant: 24 * 3600,
        Session: 24 * 3600,
        Interaction: 3600,
    },
});

provider.on("grant.success", (ctx) => {
    if (ctx.oidc.params.grant_type === "refresh_token") counts.refreshed += 1;
    else counts.exchanged += 1;
});
provider.on("grant.error", () => (counts.refused += 1));
provider.on("grant.revoked", () => (counts.revoked += 1));

const answer = (response, status, body) => {
    response.writeHead(status, { "content-type": "application/json", connection: "close" });
    response.end(JSON.stringify(body));
};

async function products(request, response) {
    const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? "")?.[1];
    const found = token && (await provider.AccessToken.find(token));
    if (found?.isValid) {
        counts.accepted += 1;
        return answer(response, 200, { data: [], account: found.accountId });
    }
    counts.rejected += 1;
    answer(response, 401, { statusCode: 401, name: "UnauthorizedError", message: "Unauthorized" });
}

const provide = provider.callback();
handler = async (request, response) => {
    const path = request.url.split("?")[0];
    if (path === "/v1/products") return products(request, response);
    if (path === "/test/counts") return answer(response, 200, counts);
    if (path === "/test/revoke") {
        // As a person does at the issuer, who takes the app's access away.
        const token = decodeURIComponent(request.url.split("?")[1]);
        const found = await provider.AccessToken.find(token);
        if (found) {
            const { grantId } = found;
            await Promise.all(
                [provider.AccessToken, provider.RefreshToken].map((kind) => kind.revokeByGrantId(grantId)),
            );
        }
        return answer(response, found ? 200 : 404, {});
    }
    if (path === "/test/forget") {
        // One access token, before its time.
        const found = await provider.AccessToken.find(decodeURIComponent(request.url.split("?")[1]));
        await found?.destroy();
        return answer(response, found ? 200 : 404, {});
    }
    // Katana documents the scope alone; this server wants OpenID's, and to be told to ask for consent.
    if (path === "/auth") request.url = request.url.replace("scope=offline_access", "scope=openid%20offline_access&prompt=consent");
    return provide(request, response);
};

console.log(server.address().port);
