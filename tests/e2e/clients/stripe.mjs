import Stripe from "stripe";
// Node before 24 knows no proxy but in fetch.
const httpClient = process.argv[2] === "--fetch" ? Stripe.createFetchHttpClient() : undefined;
const stripe = new Stripe(process.env.STRIPE_API_KEY, { maxNetworkRetries: 0, telemetry: false, httpClient });
const balance = await stripe.balance.retrieve();
const customer = await stripe.customers.create({ email: "a+b@example.test" });
console.log(JSON.stringify([balance.available[0].amount, customer.email]));
